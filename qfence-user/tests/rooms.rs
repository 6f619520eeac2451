//! The rooms of qfence-user use only rooms above them in the table of `src/lib.rs`.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    str::FromStr as _,
};

use anyhow::{Context as _, Result, anyhow, ensure};
use proc_macro2::{Delimiter, TokenStream, TokenTree};

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// The rooms in the order of the table in `src/lib.rs`.
fn rooms() -> Result<Vec<String>> {
    let text = fs::read_to_string(source().join("lib.rs"))?;
    let rows = text.lines().filter_map(|line| {
        let row = line.strip_prefix("//! | [`")?;
        Some(row.split_once('`')?.0.to_owned())
    });
    Ok(rows.collect())
}

/// All source files in a directory and below.
fn files(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(files(&path)?);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            found.push(path);
        }
    }
    Ok(found)
}

/// Collects the names after `crate::` in tokens, including those in macros and groups of imports.
fn named(tokens: TokenStream, found: &mut BTreeSet<String>) {
    // How much of `crate::` was just read.
    let mut read = 0;
    for token in tokens {
        match token {
            TokenTree::Ident(word) if read == 3 => {
                found.insert(word.to_string());
                read = 0;
            }
            TokenTree::Ident(word) => read = u8::from(word == "crate"),
            TokenTree::Punct(mark) if mark.as_char() == ':' && (1..3).contains(&read) => read += 1,
            TokenTree::Group(group) => {
                if read == 3 && group.delimiter() == Delimiter::Brace {
                    found.extend(firsts(group.stream()));
                }
                named(group.stream(), found);
                read = 0;
            }
            _ => read = 0,
        }
    }
}

/// The first words of the items of a group of imports.
fn firsts(tokens: TokenStream) -> Vec<String> {
    let mut begins = true;
    let mut found = Vec::new();
    for token in tokens {
        match token {
            TokenTree::Ident(word) if begins => {
                found.push(word.to_string());
                begins = false;
            }
            TokenTree::Punct(mark) => begins = mark.as_char() == ',' || begins,
            _ => begins = false,
        }
    }
    found
}

/// The rooms that a text names.
fn names_in(text: &str) -> Result<BTreeSet<String>> {
    let tokens = TokenStream::from_str(text).map_err(|error| anyhow!("{error}"))?;
    let mut found = BTreeSet::new();
    named(tokens, &mut found);
    Ok(found)
}

#[test]
fn imports_are_found_however_they_are_written() -> Result<()> {
    for (text, expected) in [
        ("use crate::a::b;", &["a"][..]),
        ("use crate::{a::{b, c}, d::e as f, g};", &["a", "d", "g"]),
        (
            "fn f() -> crate::a::B { println!(\"{}\", crate::c::D) }",
            &["a", "c"],
        ),
        (
            "// crate::a\n/// [`crate::b`]\nfn f() { let s = \"crate::c\"; }",
            &[],
        ),
        ("use super::a; pub(crate) fn f(b: other::crate_::C) {}", &[]),
    ] {
        let expected: BTreeSet<_> = expected.iter().map(|name| (*name).to_owned()).collect();
        assert_eq!(names_in(text)?, expected, "{text}");
    }
    Ok(())
}

#[test]
fn a_room_uses_those_above_it_alone() -> Result<()> {
    let rooms = rooms()?;
    let rank = |room: &str| rooms.iter().position(|name| name == room);
    let mut wrong = Vec::new();
    for path in files(&source())? {
        let place = path.strip_prefix(source())?;
        let mut parts = place.iter().filter_map(|part| part.to_str());
        let first = parts.next().context("a file has a name")?;
        if parts.next().is_none() {
            ensure!(
                ["lib.rs", "main.rs", "qfence-verify.rs"].contains(&first),
                "{first} is in no room"
            );
            continue;
        }
        let own =
            rank(first).with_context(|| format!("{first} is not in the table of src/lib.rs"))?;
        for name in names_in(&fs::read_to_string(&path)?)? {
            let other =
                rank(&name).with_context(|| format!("{}: crate::{name}", place.display()))?;
            if other > own {
                wrong.push(format!(
                    "{} uses {name}, which is below {first}",
                    place.display()
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    Ok(())
}

/// The parts of the library for terminals, signals and standard error, which a builder of fences must not use.
const OF_A_COMMAND: [&str; 7] = [
    "console",
    "notify",
    "message_queue",
    "MessageQueue",
    "signals",
    "stderr",
    "eprintln",
];

#[test]
fn a_fence_is_built_without_terminal_signals_or_standard_error() -> Result<()> {
    let mut used = Vec::new();
    for path in files(&source().join("build"))? {
        let text = fs::read_to_string(&path)?;
        let tokens = TokenStream::from_str(&text).map_err(|error| anyhow!("{error}"))?;
        words(tokens, &mut |word| {
            if OF_A_COMMAND.contains(&word) {
                used.push(format!("{} uses {word}", path.display()));
            }
        });
    }
    assert!(used.is_empty(), "{used:#?}");
    // The control: the verb `exec` uses them.
    let text = fs::read_to_string(source().join("commands/exec/supervise/mod.rs"))?;
    let tokens = TokenStream::from_str(&text).map_err(|error| anyhow!("{error}"))?;
    let mut notifies = false;
    words(tokens, &mut |word| notifies |= word == "notify");
    assert!(notifies);
    Ok(())
}

/// Calls `with` for each word.
fn words(tokens: TokenStream, with: &mut impl FnMut(&str)) {
    for token in tokens {
        match token {
            TokenTree::Ident(word) => with(&word.to_string()),
            TokenTree::Group(group) => words(group.stream(), with),
            _ => {}
        }
    }
}

#[test]
fn the_table_has_all_rooms() -> Result<()> {
    let entries = fs::read_dir(source())?.collect::<Result<Vec<_>, _>>()?;
    let there: BTreeSet<_> = entries
        .iter()
        .filter(|entry| entry.path().is_dir())
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    assert_eq!(rooms()?.into_iter().collect::<BTreeSet<_>>(), there);
    Ok(())
}

/// The reason is in `maps/mod.rs` of the programs.
#[test]
fn each_global_of_the_programs_has_its_section() -> Result<()> {
    let programs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../qfence-ebpf/src");
    let mut count = 0;
    for file in files(&programs)? {
        let text = fs::read_to_string(&file)?;
        let lines: Vec<_> = text.lines().collect();
        for pair in lines.windows(2) {
            if pair[1].contains("static ") && pair[1].contains(": Global<") {
                count += 1;
                let is_there = pair[0] == "#[unsafe(link_section = \".rodata\")]";
                ensure!(is_there, "{}: {}", file.display(), pair[1]);
            }
        }
    }
    ensure!(count > 20, "{count} globals");
    Ok(())
}

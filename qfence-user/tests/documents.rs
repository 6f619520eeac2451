//! Checks the documents: links lead to files, named paths exist, all documents are in README and in the book, and README's
//! table of options matches `exec`, and is short enough.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use clap::CommandFactory as _;
use qfence_user::cli::Cli;

/// The extensions of files that documents name.
const ENDINGS: [&str; 5] = ["rs", "md", "svg", "yml", "sh"];

/// The list of the pages of the book (`cargo xtask book`).
const SUMMARY: &str = "docs/SUMMARY.md";

/// Directories that are not part of the repository's sources.
const NOT_OURS: [&str; 3] = ["target", ".git", "corpus"];

fn root() -> Result<&'static Path> {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .context("the package is in the repository")
}

/// The documents and their texts.
fn documents() -> Result<Vec<(PathBuf, String)>> {
    let mut paths: Vec<PathBuf> = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"]
        .map(|name| Ok(root()?.join(name)))
        .into_iter()
        .collect::<Result<_>>()?;
    for entry in fs::read_dir(root()?.join("docs"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|ending| ending == "md") {
            paths.push(path);
        }
    }
    let read = |path: PathBuf| -> Result<_> {
        let text = fs::read_to_string(&path)?;
        Ok((path, text))
    };
    paths.into_iter().map(read).collect()
}

/// The files and directories of the repository below `directory`, as `/a/b`; directories end in `/`.
fn tree(directory: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if NOT_OURS.contains(&name.as_str()) {
            continue;
        }
        if entry.file_type()?.is_dir() {
            found.push(format!("/{name}/"));
            let below = tree(&entry.path())?;
            found.extend(below.iter().map(|path| format!("/{name}{path}")));
        } else {
            found.push(format!("/{name}"));
        }
    }
    Ok(found)
}

/// A document's text without code blocks.
fn prose(text: &str) -> String {
    let outside = text.split("\n```").step_by(2);
    let lines = outside.flat_map(str::lines);
    let lines = lines.filter(|line| !line.starts_with("    "));
    lines.collect::<Vec<_>>().join("\n")
}

/// The link targets of a document that are files.
fn links(prose: &str) -> impl Iterator<Item = &str> {
    let targets = prose.split("](").skip(1);
    targets
        .filter_map(|rest| rest.split([')', '#']).next())
        .filter(|target| !target.is_empty() && !target.contains("://"))
}

/// The inline code of a document.
fn code(prose: &str) -> impl Iterator<Item = &str> {
    prose.split('`').skip(1).step_by(2)
}

/// The paths in a piece of inline code; `a/{b,c}.rs` has two.
fn paths(code: &str) -> Vec<String> {
    let is_path = code
        .chars()
        .all(|char| char.is_ascii_lowercase() || char.is_ascii_digit() || "/._-{},".contains(char));
    if !is_path || code.starts_with(['/', '.', '-']) || code.starts_with("target/") {
        return Vec::new();
    }
    let paths = match code
        .split_once('{')
        .and_then(|(before, rest)| Some((before, rest.split_once('}')?)))
    {
        Some((before, (names, after))) => names
            .split(',')
            .map(|name| format!("{before}{name}{after}"))
            .collect(),
        None => vec![code.to_owned()],
    };
    let is_file = |path: &String| {
        let ending = Path::new(path).extension();
        ending.is_some_and(|ending| ENDINGS.iter().any(|known| ending == *known))
    };
    paths
        .into_iter()
        .filter(|path| path.ends_with('/') || is_file(path))
        .collect()
}

/// Whether the repository has a path. Documents may leave out its beginning: `policy/set.rs`.
fn exists(tree: &[String], path: &str) -> bool {
    let end = format!("/{path}");
    tree.iter().any(|known| known.ends_with(&end))
}

#[test]
fn links_lead_to_files() -> Result<()> {
    let mut count = 0;
    for (document, text) in documents()? {
        let directory = document.parent().context("a document has a directory")?;
        for link in links(&prose(&text)) {
            count += 1;
            let is_there = directory.join(link).exists();
            ensure!(is_there, "{}: ({link})", document.display());
        }
    }
    ensure!(count > 80, "only {count} links were found");
    Ok(())
}

#[test]
fn paths_of_the_repository_exist() -> Result<()> {
    let tree = tree(root()?)?;
    let (mut count, mut missing) = (0, Vec::new());
    for (document, text) in documents()? {
        let name = document.file_name().context("a document has a name")?;
        for path in code(&prose(&text)).flat_map(paths) {
            count += 1;
            if !exists(&tree, &path) {
                missing.push(format!("{}: {path}", name.display()));
            }
        }
    }
    ensure!(missing.is_empty(), "are not there:\n{}", missing.join("\n"));
    ensure!(count > 200, "only {count} paths were found");
    Ok(())
}

#[test]
fn every_document_is_reached_from_the_readme() -> Result<()> {
    let documents = documents()?;
    let (_, readme) = documents.first().context("README comes first")?;
    for (document, _) in &documents[1..] {
        let path = document.strip_prefix(root()?)?;
        // It is no page, but the list of the pages of the book.
        if path == Path::new(SUMMARY) {
            continue;
        }
        let link = format!("]({})", path.display());
        ensure!(readme.contains(&link), "{link}");
    }
    Ok(())
}

#[test]
fn every_document_is_a_page_of_the_book() -> Result<()> {
    let summary = fs::read_to_string(root()?.join(SUMMARY))?;
    for (document, _) in documents()? {
        let path = document.strip_prefix(root()?)?;
        let link = match path.strip_prefix("docs") {
            _ if path == Path::new(SUMMARY) => continue,
            Ok(page) => format!("]({})", page.display()),
            Err(_) => format!("](../{})", path.display()),
        };
        ensure!(summary.contains(&link), "{SUMMARY}: {link}");
    }
    Ok(())
}

#[test]
fn the_readme_has_the_options_of_exec() -> Result<()> {
    let readme = fs::read_to_string(root()?.join("README.md"))?;
    let table = readme
        .split("| option of `exec` |")
        .nth(1)
        .context("there is a table of options")?;
    let rows = table.lines().skip(1).take_while(|row| row.starts_with('|'));
    let cells = rows.filter_map(|row| row.strip_prefix("| ")?.split_once(" | "));
    let documented: BTreeSet<String> = cells
        .flat_map(|(options, _)| options.split(['`', ' ']))
        .filter(|word| word.starts_with('-') && !word.starts_with("---"))
        .map(str::to_owned)
        .collect();

    let cli = Cli::command();
    let exec = cli
        .find_subcommand("exec")
        .context("there is a verb `exec`")?;
    let mut options = BTreeSet::from(["-v".to_owned(), "-vv".to_owned()]);
    for option in exec.get_arguments().filter(|option| !option.is_hide_set()) {
        let long = option.get_long();
        options.extend(long.map(|long| format!("--{long}")));
    }
    // `--verbose` is documented as -v.
    options.remove("--verbose");
    assert_eq!(documented, options);
    Ok(())
}

#[test]
fn the_readme_fits_on_three_screens() -> Result<()> {
    let readme = fs::read_to_string(root()?.join("README.md"))?;
    let lines: Vec<&str> = readme.lines().collect();
    ensure!(lines.len() <= 125, "{} lines", lines.len());
    for line in lines {
        ensure!(line.chars().count() <= 120, "{line}");
    }
    Ok(())
}

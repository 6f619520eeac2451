//! Man pages: one for each program and each verb.

use anyhow::Result;
use clap::Command;
use clap_mangen::Man;

use super::extra;

/// The pages that are written by hand, in which the date and the version are placeholders.
const WRITTEN: [(&str, &str); 2] = [
    (
        "man/qfence-policy.5",
        include_str!("../../../../docs/man/qfence-policy.5"),
    ),
    (
        "man/qfence-profile.5",
        include_str!("../../../../docs/man/qfence-profile.5"),
    ),
];

/// The pages about files: path and text.
pub(super) fn written(date: &str) -> [(String, String); 2] {
    WRITTEN.map(|(path, text)| {
        let text = text
            .replace("@DATE@", date)
            .replace("@VERSION@", env!("CARGO_PKG_VERSION"));
        (path.to_owned(), text)
    })
}

/// The pages of a command and of all its subcommands: path and text.
pub(super) fn pages(program: &Command, date: &str) -> Result<Vec<(String, String)>> {
    let mut program = program.clone();
    // Gives each subcommand its full name.
    program.build();
    let mut pages = Vec::new();
    add(&program, date, &mut pages)?;
    Ok(pages)
}

fn add(command: &Command, date: &str, pages: &mut Vec<(String, String)>) -> Result<()> {
    for verb in command.get_subcommands() {
        add(verb, date, pages)?;
    }
    let name = command.get_display_name().unwrap_or(command.get_name());
    pages.push((format!("man/{name}.1"), page(command, name, date)?));
    Ok(())
}

fn page(command: &Command, name: &str, date: &str) -> Result<String> {
    let man = Man::new(command.clone())
        .title(name.to_uppercase())
        .date(date)
        .source(concat!("qfence ", env!("CARGO_PKG_VERSION")))
        .manual("qfence");
    let mut text = Vec::new();
    man.render_title(&mut text)?;
    man.render_name_section(&mut text)?;
    man.render_synopsis_section(&mut text)?;
    man.render_description_section(&mut text)?;
    man.render_options_section(&mut text)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut text)?;
    }
    let mut text = String::from_utf8(text)?;
    let notes = command.get_after_long_help().or(command.get_after_help());
    if let Some(notes) = notes {
        text.push_str(&extra::section("NOTES", &notes.to_string())?);
    }
    text.push_str(&extra::section("SEE ALSO", &see_also(name))?);
    Ok(without_blank_lines(&text))
}

/// The pages that a page refers to: all of them but itself.
fn see_also(name: &str) -> String {
    let pages = [
        "qfence-user(1)",
        "qfence-verify(1)",
        "qfence-policy(5)",
        "qfence-profile(5)",
    ];
    let own = format!("{name}(1)");
    let others: Vec<_> = pages.into_iter().filter(|page| *page != own).collect();
    others.join(", ")
}

/// A blank line is no roff: in its place the request for a vertical space, which a break beside it adds nothing to.
fn without_blank_lines(text: &str) -> String {
    let mut lines: Vec<&str> = Vec::new();
    for line in text.lines() {
        let line = if line.trim().is_empty() { ".sp" } else { line };
        let before = lines.last().copied();
        match (before, line) {
            (Some(".sp"), ".sp" | ".br") => {}
            (Some(".br"), ".sp") => {
                lines.pop();
                lines.push(line);
            }
            _ => lines.push(line),
        }
    }
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use qfence_user::policy::{
        profile::{Profile, shipped::SHIPPED},
        set::SetName,
    };

    use super::*;
    use crate::programs;

    fn all() -> BTreeMap<String, String> {
        let pages = |program: &Command| pages(program, "2026-01-02").unwrap();
        programs().iter().flat_map(pages).collect()
    }

    #[test]
    fn every_verb_has_a_page_with_all_its_options() {
        let pages = all();
        for name in [
            "qfence-user",
            "qfence-user-exec",
            "qfence-user-policy-suggest",
            "qfence-verify",
        ] {
            assert!(
                pages.contains_key(&format!("man/{name}.1")),
                "{:?}",
                pages.keys()
            );
        }
        let exec = &pages["man/qfence-user-exec.1"];
        let [user, _] = programs();
        let verb = user.find_subcommand("exec").unwrap();
        for option in verb.get_arguments().filter_map(clap::Arg::get_long) {
            let option = option.replace('-', "\\-");
            assert!(exec.contains(&format!("\\-\\-{option}")), "{option}");
        }
        assert!(exec.contains("2026\\-01\\-02") || exec.contains("2026-01-02"));
    }

    #[test]
    fn the_written_pages_name_every_set_and_every_shipped_profile() {
        let [(_, policy), (_, profile)] = written("2026-01-02");
        let entry = |name: &str| format!(".TP\n.B {}\n", name.replace('-', "\\-"));
        for set in SetName::ALL {
            assert!(policy.contains(&entry(set.name())), "{}", set.name());
        }
        for shipped in SHIPPED {
            assert!(profile.contains(&entry(shipped.name)), "{}", shipped.name);
        }
    }

    #[test]
    fn the_profile_of_the_written_page_is_valid() {
        let [_, (_, page)] = written("2026-01-02");
        assert!(page.starts_with(".TH QFENCE-PROFILE 5 \"2026-01-02\" \"qfence 0."));
        let (_, example) = page.split_once(".EX\n").unwrap();
        let (example, _) = example.split_once(".EE").unwrap();
        let example = example.replace("\\-", "-");
        Profile::parse("example", None, &example).unwrap();
    }

    #[test]
    fn no_page_has_a_blank_line_or_refers_to_itself() {
        for (name, text) in all() {
            assert!(text.lines().all(|line| !line.trim().is_empty()), "{name}");
        }
        let [_, verify] = programs();
        let page = page(&verify, "qfence-verify", "2026-01-02").unwrap();
        let (_, see) = page.split_once("SEE ALSO").unwrap();
        assert!(!see.contains("verify(1)"), "{see}");
        assert!(see.contains("user(1)"), "{see}");
    }
}

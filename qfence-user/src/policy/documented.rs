//! Checks the examples of docs/policy.md.

use super::{profile::Profile, rule::Match};

const TEXT: &str = include_str!("../../../docs/policy.md");

/// The code blocks of a language.
fn blocks(language: &str) -> impl Iterator<Item = &str> {
    TEXT.split("\n```")
        .filter_map(move |block| block.strip_prefix(language)?.strip_prefix('\n'))
}

#[test]
fn the_profiles_are_profiles() {
    assert!(blocks("toml").count() > 0);
    for text in blocks("toml") {
        let profile = Profile::parse("documented", None, text);
        assert!(profile.is_ok(), "{}\n{text}", profile.unwrap_err());
    }
}

#[test]
fn the_rules_of_the_commands_are_rules() {
    let words: Vec<&str> = TEXT.split_whitespace().collect();
    let rules: Vec<&str> = words
        .windows(2)
        .filter(|pair| ["--allow", "--deny"].contains(&pair[0]))
        .map(|pair| pair[1])
        .collect();
    assert!(rules.len() > 5, "{rules:?}");
    for rule in rules {
        assert!(rule.parse::<Match>().is_ok(), "{rule}");
    }
}

#[test]
fn the_rules_of_the_table_are_rules() {
    let table = TEXT.split("| rule | matches |").nth(1).unwrap();
    let mut count = 0;
    for row in table.lines().skip(2).take_while(|row| row.starts_with('|')) {
        let cell = row.split('|').nth(1).unwrap();
        for rule in cell.split('`').skip(1).step_by(2) {
            assert!(rule.parse::<Match>().is_ok(), "{rule}");
            count += 1;
        }
    }
    assert!(count > 8, "{count}");
}

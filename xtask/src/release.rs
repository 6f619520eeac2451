//! `release VERSION`: the checklist of a release, as a command. It changes nothing in the checkout and publishes nothing:
//! what must hold is checked, then the packages are made.

use std::fs;

use anyhow::{Context as _, Result, bail, ensure};

use crate::{build::Profile, commit, package, report, workspace};

/// Checks that this checkout is that version, and makes its packages.
pub(crate) fn release(version: &str, profile: Profile) -> Result<()> {
    let problems = problems(version)?;
    if !problems.is_empty() {
        let list: Vec<_> = problems
            .iter()
            .map(|problem| format!("- {problem}"))
            .collect();
        bail!("this checkout is not {version} yet:\n{}", list.join("\n"));
    }
    let packages = package::package(profile)?;
    let commit = commit::current()?;
    report::result(&format!(
        "qfence {version} is in {}",
        package::dist().display()
    ))?;
    report::result(&format!(
        "What remains, by hand:\n\
         1. cargo xtask test --release                  all tests, with the optimised program\n\
         2. cargo xtask package --check                 the same bytes from another checkout\n\
         3. cargo deny check advisories                 known vulnerabilities of libraries\n\
         4. git tag --sign v{version} {}\n\
         5. publish the {} files of target/dist, and a signature of SHA256SUMS",
        commit.name,
        packages.len()
    ))
}

/// What must be changed and committed before the release.
fn problems(version: &str) -> Result<Vec<String>> {
    let mut problems = Vec::new();
    if !is_version(version) {
        problems.push(format!("{version} is no version: give one like 0.2.0"));
    }
    if commit::has_changes()? {
        problems.push("the checkout has changes or new files: commit or remove them".to_owned());
    }
    let changelog = workspace::root().join("CHANGELOG.md");
    let changelog = fs::read_to_string(&changelog)
        .with_context(|| format!("reading {}", changelog.display()))?;
    problems.extend(of_changelog(&changelog, version));
    if package::VERSION != version {
        problems.push(format!(
            "Cargo.toml has the version {}: change it under [workspace.package], and run `cargo check`, which \
             changes Cargo.lock",
            package::VERSION
        ));
    }
    Ok(problems)
}

fn is_version(version: &str) -> bool {
    let numbers: Vec<_> = version.split('.').collect();
    let is_number = |text: &&str| {
        let has_zero = text.len() > 1 && text.starts_with('0');
        !has_zero && !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
    };
    numbers.len() == 3 && numbers.iter().all(is_number)
}

/// The changelog must have a section of the version with a date and with lines, and nothing under "Unreleased".
fn of_changelog(text: &str, version: &str) -> Vec<String> {
    let mut problems = Vec::new();
    let section = |title: &str| {
        let (_, rest) = text.split_once(&format!("\n## {title}"))?;
        let (heading, rest) = rest.split_once('\n').unwrap_or((rest, ""));
        let body = rest.split("\n## ").next().unwrap_or_default();
        Some((
            heading,
            body.lines().filter(|line| line.starts_with("- ")).count(),
        ))
    };
    match section(version) {
        None => problems.push(format!(
            "CHANGELOG.md has no section `## {version} - YYYY-MM-DD`: rename \"Unreleased\""
        )),
        Some((heading, lines)) => {
            let is_dated = heading
                .strip_prefix(" - ")
                .is_some_and(|date| date.trim().len() == 10);
            if !is_dated {
                problems.push(format!("the section {version} of CHANGELOG.md has no date"));
            }
            if lines == 0 {
                problems.push(format!("the section {version} of CHANGELOG.md has no line"));
            }
        }
    }
    if section("Unreleased").is_some_and(|(_, lines)| lines > 0) {
        problems.push("CHANGELOG.md has lines under \"Unreleased\"".to_owned());
    }
    problems
}

/// Fails if the version is none, so that a mistake is found before a build.
pub(crate) fn check(version: &str) -> Result<()> {
    ensure!(
        is_version(version),
        "{version:?} is no version: give one like 0.2.0"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_has_three_numbers() {
        for version in ["0.2.0", "10.0.13"] {
            assert!(is_version(version), "{version}");
        }
        for version in ["0.2", "0.2.0.1", "v0.2.0", "0.2.x", "0.02.0", "0..0", ""] {
            assert!(!is_version(version), "{version}");
        }
    }

    #[test]
    fn a_section_with_a_date_and_lines_is_needed() {
        let text = "# Changelog\n\n## 0.2.0 - 2026-12-01\n\n### Added\n- A thing.\n\n## 0.1.0 - 2026-01-01\n- x\n";
        assert!(
            of_changelog(text, "0.2.0").is_empty(),
            "{:?}",
            of_changelog(text, "0.2.0")
        );
        let undated = text.replace("## 0.2.0 - 2026-12-01", "## 0.2.0");
        assert_eq!(of_changelog(&undated, "0.2.0").len(), 1);
        let empty = text.replace("- A thing.\n", "");
        assert_eq!(of_changelog(&empty, "0.2.0").len(), 1);
        let other = text.replace("0.2.0", "Unreleased");
        assert_eq!(of_changelog(&other, "0.2.0").len(), 2);
    }
}

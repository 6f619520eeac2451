//! The commit of the checkout: its name and its date, which packages are made from.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};

use crate::{shell, workspace};

/// A commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Commit {
    /// Its name, with `+` if tracked files have changes; `unknown` if nothing names it.
    pub(crate) name: String,
    /// Its date, in seconds since 1970. It is the date of everything in a package.
    pub(crate) date: u64,
}

/// Asks git, or reads the file xtask/COMMIT, in which `git archive` names the commit of a source archive.
pub(crate) fn current() -> Result<Commit> {
    let root = workspace::root();
    if root.join(".git").exists() {
        return of_git(root);
    }
    let path = root.join("xtask/COMMIT");
    let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    Ok(of_archive(&text))
}

/// Whether tracked files differ from the commit, or files were added.
pub(crate) fn has_changes() -> Result<bool> {
    Ok(!git(workspace::root(), &["status", "--porcelain"])?.is_empty())
}

fn of_git(root: &Path) -> Result<Commit> {
    let changes = git(root, &["status", "--porcelain", "--untracked-files=no"])?;
    let mut name = git(root, &["rev-parse", "HEAD"])?;
    if !changes.is_empty() {
        name.push('+');
    }
    let date = git(root, &["log", "-1", "--format=%ct"])?;
    let date = date.parse().context("reading the date of the commit")?;
    Ok(Commit { name, date })
}

fn git(root: &Path, args: &[&str]) -> Result<String> {
    let mut git = shell::program("git");
    let said = shell::output(git.arg("-C").arg(root).args(args))?;
    Ok(said.trim_end().to_owned())
}

/// The file has a placeholder where `git archive` did not write it.
fn of_archive(text: &str) -> Commit {
    let known = text.trim().split_once(' ').and_then(|(name, date)| {
        let is_name = name.len() >= 40 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
        Some((is_name.then_some(name)?, date.parse().ok()?))
    });
    let (name, date) = known.unwrap_or(("unknown", 0));
    Commit {
        name: name.to_owned(),
        date,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_archive_names_its_commit() {
        let name = "0123456789abcdef0123456789abcdef01234567";
        let commit = of_archive(&format!("{name} 1795869999\n"));
        assert_eq!((commit.name.as_str(), commit.date), (name, 1_795_869_999));
        let placeholder = include_str!("../COMMIT");
        for text in [placeholder, "", "0123 5", &format!("{name} never")] {
            assert_eq!(of_archive(text).name, "unknown", "{text}");
        }
    }

    #[test]
    fn git_names_the_commit_and_marks_changes() {
        let dir = tempfile::tempdir().unwrap();
        let run = |args: &[&str]| git(dir.path(), args).unwrap();
        run(&["init", "--quiet"]);
        fs::write(dir.path().join("file"), "one").unwrap();
        run(&["add", "file"]);
        run(&[
            "-c",
            "user.name=x",
            "-c",
            "user.email=x@example.org",
            "commit",
            "--quiet",
            "-m",
            "x",
            "--date",
            "@1795869999 +0000",
        ]);
        let clean = of_git(dir.path()).unwrap();
        assert_eq!(clean.name, run(&["rev-parse", "HEAD"]));
        fs::write(dir.path().join("untracked"), "").unwrap();
        assert_eq!(of_git(dir.path()).unwrap(), clean);
        fs::write(dir.path().join("file"), "two").unwrap();
        assert_eq!(of_git(dir.path()).unwrap().name, format!("{}+", clean.name));
    }
}

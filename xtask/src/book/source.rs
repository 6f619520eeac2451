//! The source of the book: a copy of the documents, at their places in the checkout, so that links between them need no
//! change. Only the summary is moved: `docs/SUMMARY.md` is the list of pages, and mdBook wants it at the root.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};

/// The settings of mdBook.
const SETTINGS: &str = include_str!("book.toml");
/// What the book's pages need beside mdBook's own styles.
const STYLE: &str = include_str!("style.css");

/// Writes the source of the book, from the checkout `root`, into `work`.
pub(super) fn lay_out(root: &Path, work: &Path) -> Result<()> {
    let pages = work.join("src");
    copy_files(root, &pages, &["md"])?;
    copy_files(
        &root.join("docs"),
        &pages.join("docs"),
        &["md", "svg", "json"],
    )?;
    let moved = pages.join("docs/SUMMARY.md");
    let summary =
        fs::read_to_string(&moved).with_context(|| format!("reading {}", moved.display()))?;
    fs::remove_file(&moved).with_context(|| format!("removing {}", moved.display()))?;
    write(&pages.join("SUMMARY.md"), &at_root(&summary))?;
    write(&work.join("book.toml"), SETTINGS)?;
    write(&work.join("style.css"), STYLE)
}

/// The summary of `docs/`, with links as from the directory above it.
fn at_root(summary: &str) -> String {
    let mut moved = String::new();
    let mut parts = summary.split("](");
    moved.push_str(parts.next().unwrap_or_default());
    for part in parts {
        moved.push_str("](");
        match part.strip_prefix("../") {
            Some(above) => moved.push_str(above),
            None => {
                moved.push_str("docs/");
                moved.push_str(part);
            }
        }
    }
    moved
}

/// Copies the files of a directory that end in one of `endings`.
fn copy_files(from: &Path, to: &Path, endings: &[&str]) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("creating {}", to.display()))?;
    let mut count = 0;
    for path in files(from)? {
        let ending = path.extension();
        if let Some(name) = path.file_name()
            && endings
                .iter()
                .any(|known| ending.is_some_and(|ending| ending == *known))
        {
            fs::copy(&path, to.join(name))
                .with_context(|| format!("copying {}", path.display()))?;
            count += 1;
        }
    }
    ensure!(count > 0, "{} has no documents", from.display());
    Ok(())
}

/// The files of a directory, without those below its directories.
pub(super) fn files(directory: &Path) -> Result<Vec<PathBuf>> {
    let context = || format!("listing {}", directory.display());
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).with_context(context)? {
        let path = entry.with_context(context)?.path();
        if path.is_file() {
            files.push(path);
        }
    }
    files.sort_unstable();
    Ok(files)
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("writing {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_of_the_summary_lead_to_the_same_files_from_the_root() {
        let summary =
            "# qfence\n\n[qfence](../README.md)\n- [Policies](policy.md)\n  - [Names](names.md)\n";
        assert_eq!(
            at_root(summary),
            "# qfence\n\n[qfence](README.md)\n- [Policies](docs/policy.md)\n  - [Names](docs/names.md)\n"
        );
    }

    #[test]
    fn documents_are_copied_to_their_places_and_nothing_else_is() {
        let root = tempfile::tempdir().unwrap();
        let work = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("docs")).unwrap();
        for (name, text) in [
            ("README.md", "[a](docs/a.md)"),
            ("Cargo.toml", ""),
            ("docs/a.md", "![b](b.svg)"),
            ("docs/b.svg", "<svg/>"),
            ("docs/SUMMARY.md", "[a](a.md)"),
        ] {
            fs::write(root.path().join(name), text).unwrap();
        }
        lay_out(root.path(), work.path()).unwrap();
        let names = |directory: &str| -> Vec<_> {
            let paths = files(&work.path().join(directory)).unwrap();
            paths
                .iter()
                .map(|path| path.file_name().unwrap().to_owned())
                .collect()
        };
        assert_eq!(names("."), ["book.toml", "style.css"]);
        assert_eq!(names("src"), ["README.md", "SUMMARY.md"]);
        assert_eq!(names("src/docs"), ["a.md", "b.svg"]);
        let summary = fs::read_to_string(work.path().join("src/SUMMARY.md")).unwrap();
        assert_eq!(summary, "[a](docs/a.md)");
    }
}

//! `book`: builds README, `docs/` and the other documents as a book of HTML pages with search, in `target/book`. A warning
//! of mdBook, or a broken link or anchor, is an error.

mod links;
mod source;

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

use crate::{report, shell, tools, workspace};

/// Builds the book, and checks its links.
pub(crate) fn book() -> Result<()> {
    let mdbook = tools::MDBOOK.program()?;
    let work = workspace::target().join("book-source");
    clear(&work)?;
    source::lay_out(workspace::root(), &work)?;
    let book = workspace::target().join("book");
    clear(&book)?;
    let mut build = shell::program(mdbook);
    build.arg("build").arg("--dest-dir").arg(&book).arg(&work);
    // The caller's settings: they could hide warnings, or change the book.
    build.env_remove("MDBOOK_LOG").env_remove("RUST_LOG");
    let output = build
        .output()
        .with_context(|| format!("starting {}", shell::describe(&build)))?;
    let messages = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() || has_warning(&messages) {
        report::note(messages.trim_end());
        bail!(
            "{} failed or warned ({}); its messages are above",
            shell::describe(&build),
            output.status
        );
    }
    let pages = read_pages(&book)?;
    let broken = links::broken(&pages, |path| book.join(path).is_file());
    if !broken.is_empty() {
        bail!(
            "broken links in the book:\n    {}\nA page is listed in docs/SUMMARY.md; a source file is \
             named as `code`, not linked",
            broken.join("\n    ")
        );
    }
    report::note(&format!(
        "{} pages: open {}",
        pages.len(),
        book.join("index.html").display()
    ));
    Ok(())
}

/// Whether mdBook printed a warning or an error. It exits with status 0 after both.
fn has_warning(messages: &str) -> bool {
    messages.lines().any(|line| {
        ["WARN ", "ERROR "]
            .iter()
            .any(|level| line.trim_start().starts_with(level))
    })
}

fn clear(directory: &Path) -> Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", directory.display()))
        }
        _ => Ok(()),
    }
}

/// The pages of the book, by their paths in it.
fn read_pages(book: &Path) -> Result<Vec<(PathBuf, String)>> {
    let mut pages = Vec::new();
    for directory in [book.to_owned(), book.join("docs")] {
        for path in source::files(&directory)? {
            if path.extension().is_some_and(|ending| ending == "html") {
                let text = fs::read_to_string(&path)
                    .with_context(|| format!("reading {}", path.display()))?;
                pages.push((path.strip_prefix(book)?.to_owned(), text));
            }
        }
    }
    Ok(pages)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_warning_is_found_among_mdbooks_messages() {
        let quiet = " INFO Book building has started\n INFO Running the html backend\n";
        assert!(!has_warning(quiet));
        assert!(has_warning(&format!(
            "{quiet} WARN unclosed HTML tag `<b>`\n"
        )));
        assert!(has_warning(&format!("{quiet}ERROR Error updating\n")));
    }
}

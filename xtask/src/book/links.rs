//! Finds broken links in HTML pages: to files that are not there, and to anchors that no element of the page has.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Component, Path, PathBuf},
};

/// The broken links of pages, each with its page. `exists` tells whether the book has a file. Links to other hosts are not
/// followed.
pub(super) fn broken(pages: &[(PathBuf, String)], exists: impl Fn(&Path) -> bool) -> Vec<String> {
    let anchors: BTreeMap<&Path, BTreeSet<&str>> = pages
        .iter()
        .map(|(path, html)| (path.as_path(), attributes(html, &["id"]).collect()))
        .collect();
    let mut broken = BTreeSet::new();
    for (page, html) in pages {
        for link in attributes(html, &["href", "src"]).filter(|link| !has_scheme(link)) {
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            let reason = match resolved(page, path) {
                Some(target) if exists(&target) => match anchors.get(target.as_path()) {
                    Some(ids) if !anchor.is_empty() && !ids.contains(anchor) => "no such anchor",
                    _ => continue,
                },
                _ => "no such file",
            };
            broken.insert(format!("{}: {link}: {reason}", page.display()));
        }
    }
    broken.into_iter().collect()
}

/// Whether a link leads to another host, as `https://…` or `mailto:…` do.
fn has_scheme(link: &str) -> bool {
    link.split_once(':').is_some_and(|(scheme, _)| {
        !scheme.is_empty() && scheme.chars().all(|char| char.is_ascii_alphanumeric())
    })
}

/// The file to which a link of `page` leads; `None` if that is outside the book.
fn resolved(page: &Path, link: &str) -> Option<PathBuf> {
    if link.is_empty() {
        return Some(page.to_owned());
    }
    let mut target = page.parent()?.to_owned();
    for component in Path::new(link).components() {
        match component {
            Component::Normal(name) => target.push(name),
            Component::CurDir => {}
            Component::ParentDir => {
                if !target.pop() {
                    return None;
                }
            }
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(target)
}

/// The values of the attributes with these names, of all elements of a page. Scripts and comments are left out.
fn attributes<'a>(html: &'a str, names: &'a [&str]) -> impl Iterator<Item = &'a str> {
    tags(html).flat_map(move |tag| {
        names.iter().filter_map(move |name| {
            let (_, rest) = tag.split_once(&format!(" {name}=\""))?;
            rest.split('"').next()
        })
    })
}

/// The opening tags of a page: name and attributes.
fn tags(html: &str) -> impl Iterator<Item = &str> {
    let mut rest = html;
    std::iter::from_fn(move || {
        loop {
            let start = rest.find('<')?;
            rest = &rest[start + 1..];
            if let Some(comment) = rest.strip_prefix("!--") {
                rest = comment.split_once("-->")?.1;
                continue;
            }
            let (tag, after) = rest.split_once('>')?;
            rest = after;
            if tag.starts_with("script") {
                rest = rest.split_once("</script>")?.1;
            }
            return Some(tag);
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broken_of(pages: &[(&str, &str)]) -> Vec<String> {
        let pages: Vec<_> = pages
            .iter()
            .map(|(path, html)| (PathBuf::from(path), (*html).to_owned()))
            .collect();
        broken(&pages, |path| {
            path == Path::new("docs/flow.svg") || pages.iter().any(|(page, _)| page == path)
        })
    }

    #[test]
    fn links_to_pages_pictures_anchors_and_other_hosts_are_good() {
        let front = r#"<h1 id="top">a</h1><a href="docs/a.html#b">x</a><a href="https://example.org/x">y</a>"#;
        let page = r##"<h2 class="x" id="b">b</h2><a href="../index.html#top">x</a><a href="#b">y</a><img src="flow.svg">"##;
        let none: [&str; 0] = [];
        assert_eq!(
            broken_of(&[("index.html", front), ("docs/a.html", page)]),
            none
        );
    }

    #[test]
    fn a_missing_file_or_anchor_and_a_way_out_of_the_book_are_broken() {
        let front = r#"<a href="docs/gone.html">x</a><img src="docs/gone.svg">"#;
        let page = r##"<a href="../index.html#gone">x</a><a href="#gone">y</a><a href="../../up.html">z</a>"##;
        assert_eq!(
            broken_of(&[("index.html", front), ("docs/a.html", page)]),
            [
                "docs/a.html: #gone: no such anchor",
                "docs/a.html: ../../up.html: no such file",
                "docs/a.html: ../index.html#gone: no such anchor",
                "index.html: docs/gone.html: no such file",
                "index.html: docs/gone.svg: no such file",
            ]
        );
    }

    #[test]
    fn scripts_and_comments_have_no_links_and_no_anchors() {
        let page = r##"<!-- <p id="a"> --><script src="docs/flow.svg">x = '<a href="gone">'</script><a href="#a">x</a>"##;
        assert_eq!(
            broken_of(&[("index.html", page)]),
            ["index.html: #a: no such anchor"]
        );
    }
}

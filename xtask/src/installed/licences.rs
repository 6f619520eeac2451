//! The licences of qfence, and of all libraries that are in its programs.
//!
//! They are collected from `cargo metadata` and from the sources of the libraries. `cargo xtask test --only deny` checks
//! which licences are allowed.

use std::{
    collections::{BTreeMap, BTreeSet},
    env::consts::ARCH,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::{shell, workspace};

/// The crates that are in the programs: qfence-user, and the eBPF programs that it embeds.
const PROGRAMS: [&str; 2] = ["qfence-user", "qfence-ebpf"];

/// Beginnings of the names of files that have a licence.
const LICENCES: [&str; 5] = ["LICENSE", "LICENCE", "COPYING", "NOTICE", "UNLICENSE"];

/// A library.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Library {
    name: String,
    version: String,
    /// The SPDX expression.
    licence: String,
    authors: Vec<String>,
    /// The directory of its source.
    source: PathBuf,
}

/// The text of share/doc/qfence/copyright.
pub(crate) fn copyright() -> Result<String> {
    let mut text = String::from(
        "qfence\n======\n\n\
         qfence is MIT OR Apache-2.0, at your choice. Its eBPF programs, which are in qfence-user and qfence-verify, are\n\
         MIT OR GPL-2.0-only. The Apache License, Version 2.0, is in /usr/share/common-licenses/Apache-2.0 on Debian, the\n\
         GNU General Public License, version 2, in /usr/share/common-licenses/GPL-2. The licences of the libraries in the\n\
         programs are in licences.txt.gz beside this file.\n\n",
    );
    let mit = workspace::root().join("LICENSE-MIT");
    text.push_str(&fs::read_to_string(&mit).with_context(|| format!("reading {}", mit.display()))?);
    Ok(text)
}

/// The licences of all libraries.
pub(crate) fn of_libraries() -> Result<String> {
    render(&libraries()?)
}

fn libraries() -> Result<BTreeSet<Library>> {
    let mut metadata = shell::cargo();
    metadata.args(["metadata", "--format-version", "1", "--locked"]);
    metadata.args(["--filter-platform", &format!("{ARCH}-unknown-linux-gnu")]);
    let metadata: Value = serde_json::from_str(&shell::output(&mut metadata)?)?;
    libraries_in(&metadata)
}

/// The libraries that the programs are linked with, from the output of `cargo metadata`: neither those of build scripts nor
/// those of tests.
fn libraries_in(metadata: &Value) -> Result<BTreeSet<Library>> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let packages: BTreeMap<String, Value> = list(&metadata["packages"])
        .into_iter()
        .map(|package| (text(&package["id"]), package))
        .collect();
    let nodes: BTreeMap<String, Value> = list(&metadata["resolve"]["nodes"])
        .into_iter()
        .map(|node| (text(&node["id"]), node))
        .collect();
    let is_program = |id: &&String| {
        let package = &packages[*id];
        package["source"].is_null() && PROGRAMS.contains(&text(&package["name"]).as_str())
    };
    let mut open: Vec<String> = packages.keys().filter(is_program).cloned().collect();
    ensure!(
        open.len() == PROGRAMS.len(),
        "cargo metadata does not list {PROGRAMS:?}"
    );
    let mut seen = BTreeSet::new();
    let mut libraries = BTreeSet::new();
    while let Some(id) = open.pop() {
        if !seen.insert(id.clone()) {
            continue;
        }
        let package = packages
            .get(&id)
            .context("a dependency without a package")?;
        if !package["source"].is_null() {
            let manifest = PathBuf::from(text(&package["manifest_path"]));
            libraries.insert(Library {
                name: text(&package["name"]),
                version: text(&package["version"]),
                licence: text(&package["license"]),
                authors: list(&package["authors"]).iter().map(text).collect(),
                source: manifest.parent().unwrap_or(&manifest).to_owned(),
            });
        }
        let node = nodes.get(&id).context("a package without dependencies")?;
        for dependency in list(&node["deps"]) {
            let kinds = list(&dependency["dep_kinds"]);
            if kinds.iter().any(|kind| kind["kind"].is_null()) {
                open.push(text(&dependency["pkg"]));
            }
        }
    }
    Ok(libraries)
}

/// Each library with its expression, and each text of a licence once.
fn render(libraries: &BTreeSet<Library>) -> Result<String> {
    let mut text = String::from("The libraries in qfence-user and qfence-verify\n\n");
    let mut texts: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for library in libraries {
        let name = format!("{} {}", library.name, library.version);
        write!(text, "{name}: {}", library.licence)?;
        if !library.authors.is_empty() {
            write!(text, "; {}", library.authors.join(", "))?;
        }
        text.push('\n');
        for licence in texts_in(&library.source)? {
            texts.entry(licence).or_default().insert(name.clone());
        }
    }
    for (licence, names) in texts {
        let names: Vec<_> = names.into_iter().collect();
        let line = "=".repeat(78);
        write!(
            text,
            "\n{line}\n{}\n{line}\n\n{}\n",
            names.join(", "),
            licence.trim()
        )?;
    }
    Ok(text)
}

/// The texts of the licences in a directory.
fn texts_in(source: &Path) -> Result<BTreeSet<String>> {
    let mut texts = BTreeSet::new();
    for entry in fs::read_dir(source).with_context(|| format!("reading {}", source.display()))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().to_uppercase();
        if entry.path().is_file() && LICENCES.iter().any(|start| name.starts_with(start)) {
            let bytes = fs::read(entry.path())?;
            texts.insert(String::from_utf8_lossy(&bytes).into_owned());
        }
    }
    Ok(texts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_linked_is_listed_and_what_builds_it_is_not() {
        let package = |name: &str, source: Value| {
            json!({
                "id": name, "name": name, "version": "1.0.0", "license": "MIT", "authors": [],
                "source": source, "manifest_path": format!("/src/{name}/Cargo.toml"),
            })
        };
        let registry = json!("registry");
        let dependency =
            |name: &str, kind: Value| json!({ "pkg": name, "dep_kinds": [{ "kind": kind }] });
        let metadata = json!({
            "packages": [
                package("qfence-user", Value::Null), package("qfence-ebpf", Value::Null),
                package("linked", registry.clone()), package("below", registry.clone()),
                package("builds", registry.clone()), package("tests-only", registry),
            ],
            "resolve": { "nodes": [
                { "id": "qfence-user", "deps": [
                    dependency("linked", Value::Null), dependency("builds", json!("build")),
                    dependency("tests-only", json!("dev")),
                ] },
                { "id": "qfence-ebpf", "deps": [] },
                { "id": "linked", "deps": [dependency("below", Value::Null)] },
                { "id": "below", "deps": [] }, { "id": "builds", "deps": [] },
                { "id": "tests-only", "deps": [] },
            ] },
        });
        let libraries = libraries_in(&metadata).unwrap();
        let names: Vec<_> = libraries.iter().map(|library| &library.name).collect();
        assert_eq!(names, ["below", "linked"]);
    }

    #[test]
    fn a_text_that_libraries_share_is_there_once() {
        let dir = tempfile::tempdir().unwrap();
        let library = |name: &str| {
            let source = dir.path().join(name);
            fs::create_dir(&source).unwrap();
            fs::write(source.join("LICENSE-MIT"), "the licence\n").unwrap();
            fs::write(source.join("lib.rs"), "no licence").unwrap();
            Library {
                name: name.to_owned(),
                version: "1.0.0".to_owned(),
                licence: "MIT".to_owned(),
                authors: vec!["Somebody".to_owned()],
                source,
            }
        };
        let text = render(&BTreeSet::from(["one", "two"].map(library))).unwrap();
        assert_eq!(text.matches("the licence").count(), 1, "{text}");
        assert!(text.contains("\none 1.0.0, two 1.0.0\n"), "{text}");
        assert!(text.contains("\ntwo 1.0.0: MIT; Somebody\n"), "{text}");
        assert!(!text.contains("no licence"));
    }
}

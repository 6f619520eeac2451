//! What is installed, and where: one list, from which `install`, `uninstall` and all packages are made.
//!
//! | file | job |
//! |---|---|
//! | `mod.rs` | the list |
//! | [`made`] | makes what is not in the checkout: man pages, completions, licences, the manifest |
//! | [`licences`] | the licences of all libraries in the programs |
//! | [`stage`] | writes the files of the list below a directory |

pub(crate) mod licences;
pub(crate) mod made;
pub(crate) mod stage;

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use made::Made;

use crate::workspace;

/// Where packages of a kind have their files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    /// The directory that has `bin` and `share`.
    pub(crate) prefix: PathBuf,
    /// The directory of completions for zsh, below the prefix.
    zsh: &'static str,
}

impl Layout {
    /// For a prefix such as /usr/local.
    pub(crate) fn new(prefix: &Path) -> Self {
        Self {
            prefix: prefix.to_owned(),
            zsh: "share/zsh/site-functions",
        }
    }

    /// For Debian packages.
    pub(crate) fn debian() -> Self {
        Self {
            zsh: "share/zsh/vendor-completions",
            ..Self::new(Path::new("/usr"))
        }
    }
}

/// A file that is installed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    /// The path below the prefix.
    pub(crate) path: PathBuf,
    pub(crate) content: Content,
}

/// The content of an installed file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// A copy of a program.
    Program(PathBuf),
    /// A copy of a file, compressed by gzip.
    Compressed(PathBuf),
    /// A text.
    Text(String),
    /// A text that is a script.
    Script(String),
    /// A symbolic link to a file beside it.
    Link(&'static str),
}

/// The name of the directory of contrib/ whose files are not for this host: its image has a prefix of its own.
const OF_AN_IMAGE: &str = "kubernetes";

/// The installed list of the files that `install` has written, by their paths below the prefix.
pub(crate) const LIST: &str = "share/qfence/files";

/// The path at which the files of contrib/ name qfence.
const IN_CONTRIB: &str = "/usr/local/bin/qfence-user";

/// The list, sorted by path. `made` has what is not in the checkout.
pub(crate) fn rows(layout: &Layout, made: &Made) -> Result<Vec<Row>> {
    let mut list = List {
        rows: Vec::new(),
        program: layout.prefix.join("bin/qfence-user"),
    };
    list.programs(made);
    list.pages(&made.pages.join("man"))?;
    list.completions(&made.pages.join("completions"), layout.zsh)?;
    let root = workspace::root();
    for name in names_in(&root.join("qfence-user/profiles"))? {
        let text = root.join("qfence-user/profiles").join(&name);
        list.file(format!("share/qfence/profiles/{name}"), &text)?;
    }
    list.contrib(&root.join("contrib"))?;
    list.documents(root, made)?;
    list.rows.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(list.rows)
}

/// The list as a file that is installed too, from which `uninstall` knows what to remove.
pub(crate) fn with_list(mut rows: Vec<Row>) -> Vec<Row> {
    let mut paths: Vec<_> = rows.iter().map(|row| row.path.clone()).collect();
    paths.push(LIST.into());
    paths.sort();
    let lines = paths.iter().map(|path| format!("{}\n", path.display()));
    rows.push(Row {
        path: LIST.into(),
        content: Content::Text(lines.collect()),
    });
    rows
}

struct List {
    rows: Vec<Row>,
    /// The installed path of qfence-user.
    program: PathBuf,
}

impl List {
    fn add(&mut self, path: impl Into<PathBuf>, content: Content) {
        self.rows.push(Row {
            path: path.into(),
            content,
        });
    }

    /// A text of the checkout that is not a script.
    fn file(&mut self, path: impl Into<PathBuf>, file: &Path) -> Result<()> {
        self.add(path, Content::Text(read(file)?));
        Ok(())
    }

    fn programs(&mut self, made: &Made) {
        let verifier = made.program.with_file_name("qfence-verify");
        self.add("bin/qfence-user", Content::Program(made.program.clone()));
        self.add("bin/qfence-verify", Content::Program(verifier));
        self.add("bin/qfence", Content::Link("qfence-user"));
        self.add(
            "share/qfence/build.toml",
            Content::Text(made.manifest.clone()),
        );
    }

    fn pages(&mut self, pages: &Path) -> Result<()> {
        for name in names_in(pages)? {
            let section = name.rsplit('.').next().unwrap_or_default();
            let path = format!("share/man/man{section}/{name}.gz");
            self.add(path, Content::Compressed(pages.join(&name)));
        }
        self.add(
            "share/man/man1/qfence.1.gz",
            Content::Link("qfence-user.1.gz"),
        );
        Ok(())
    }

    fn completions(&mut self, scripts: &Path, zsh: &str) -> Result<()> {
        const BASH: &str = "share/bash-completion/completions";
        for name in names_in(scripts)? {
            let path = match name.rsplit_once('.') {
                // bash looks for a file of the name of the command.
                Some((command, "bash")) => format!("{BASH}/{command}"),
                Some((_, "fish")) => format!("share/fish/vendor_completions.d/{name}"),
                _ => format!("{zsh}/{name}"),
            };
            self.file(path, &scripts.join(&name))?;
        }
        self.add(format!("{BASH}/qfence"), Content::Link("qfence-user"));
        Ok(())
    }

    /// All of contrib/, and what is in force where it is installed: the unit, the directory, the hooks of podman.
    fn contrib(&mut self, contrib: &Path) -> Result<()> {
        for file in files_in(contrib)? {
            let name = file.strip_prefix(contrib)?.to_owned();
            let content = self.of_contrib(&file, !name.starts_with(OF_AN_IMAGE))?;
            let active = match name.to_str() {
                Some("systemd/qfence@.service") => Some("lib/systemd/system/qfence@.service"),
                Some("tmpfiles/qfence.conf") => Some("lib/tmpfiles.d/qfence.conf"),
                // They fence containers with an annotation that asks for it. Without them it would ask in vain.
                Some("oci/qfence.json") => Some("share/containers/oci/hooks.d/qfence.json"),
                Some("oci/qfence-poststop.json") => {
                    Some("share/containers/oci/hooks.d/qfence-poststop.json")
                }
                _ => None,
            };
            if let Some(path) = active {
                self.add(path, content);
            } else {
                self.add(Path::new("share/qfence/contrib").join(name), content);
            }
        }
        Ok(())
    }

    /// The text of a file of contrib/, which names qfence where it is installed.
    fn of_contrib(&self, file: &Path, is_of_this_host: bool) -> Result<Content> {
        let mut text = read(file)?;
        if is_of_this_host {
            text = text.replace(IN_CONTRIB, &self.program.to_string_lossy());
        }
        Ok(if text.starts_with("#!") {
            Content::Script(text)
        } else {
            Content::Text(text)
        })
    }

    fn documents(&mut self, root: &Path, made: &Made) -> Result<()> {
        const DOC: &str = "share/doc/qfence";
        for name in [
            "README.md",
            "ARCHITECTURE.md",
            "CHANGELOG.md",
            "CONTRIBUTING.md",
            "SECURITY.md",
        ] {
            self.file(format!("{DOC}/{name}"), &root.join(name))?;
        }
        self.add(
            format!("{DOC}/changelog.gz"),
            Content::Compressed(root.join("CHANGELOG.md")),
        );
        let docs = root.join("docs");
        for name in names_in(&docs)? {
            let file = docs.join(&name);
            if file.is_file() {
                self.file(format!("{DOC}/docs/{name}"), &file)?;
            }
        }
        self.add(
            format!("{DOC}/copyright"),
            Content::Text(made.copyright.clone()),
        );
        self.add(
            format!("{DOC}/licences.txt.gz"),
            Content::Compressed(made.licences.clone()),
        );
        if let Some(sbom) = &made.sbom {
            self.file(format!("{DOC}/qfence.cdx.json"), sbom)?;
        }
        Ok(())
    }
}

fn read(file: &Path) -> Result<String> {
    fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))
}

/// The names in a directory, sorted.
fn names_in(dir: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(dir).with_context(|| format!("reading {}", dir.display()))?;
    let mut names = Vec::new();
    for entry in entries {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

/// The files below a directory, sorted.
fn files_in(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for name in names_in(dir)? {
        let path = dir.join(name);
        if path.is_dir() {
            files.extend(files_in(&path)?);
        } else {
            files.push(path);
        }
    }
    Ok(files)
}

#[cfg(test)]
pub(crate) mod tests;

//! Checks the version of a fence. A fence of another version is left alone: its maps, files and locks may have
//! another meaning.

use std::{fmt, path::PathBuf};

use anyhow::Result;

use super::registry::Fences;
use crate::base::{name::check_name, version::abi};

/// A fence is of another version of qfence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the fence {name:?} was made by another version of qfence (ABI {found}, and this is ABI {}): it is not read or \
     changed. Use that version, whose `qfence-user rm` removes it; without that version, remove it by {by_hand}",
    abi()
)]
pub struct OtherVersion {
    /// Its name.
    pub name: String,
    /// Its version.
    pub found: u32,
    /// The commands that end it without qfence.
    pub by_hand: ByHand,
}

/// Shell commands by which root ends a fence of any version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ByHand {
    /// `None` if others have made it: their processes are not ended, and the programs are only detached.
    cgroup: Option<PathBuf>,
    /// Its paths other than the cgroup.
    files: Vec<PathBuf>,
}

impl fmt::Display for ByHand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(cgroup) = self.cgroup.as_deref().filter(|cgroup| cgroup.is_dir()) {
            // Available since Linux 5.14.
            let kill = cgroup.join("cgroup.kill");
            if kill.exists() {
                write!(f, "`echo 1 > {}`", quoted(&kill))?;
            } else {
                let processes = cgroup.join("cgroup.procs");
                write!(f, "`xargs -r kill -KILL < {}`", quoted(&processes))?;
            }
            write!(
                f,
                ", and the rest that its supervisor leaves by `rmdir {} && ",
                quoted(cgroup)
            )?;
        } else {
            f.write_str("`")?;
        }
        f.write_str("rm -rf")?;
        for file in &self.files {
            write!(f, " {}", quoted(file))?;
        }
        f.write_str("`")
    }
}

/// Quotes a path for a shell.
fn quoted(path: &std::path::Path) -> String {
    let text = path.display().to_string();
    let is_plain =
        |character: char| character.is_ascii_alphanumeric() || "/._-%".contains(character);
    if text.chars().all(is_plain) {
        return text;
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

impl Fences {
    /// Checks that the fence `name`, if there is one, is of this program's version. Must be called before anything
    /// else of it is used.
    ///
    /// # Errors
    /// [`OtherVersion`] if it is not, or if the version cannot be read.
    pub fn check_version(&self, name: &str) -> Result<()> {
        check_name(name)?;
        match self.version_of(name)? {
            Some(found) if found != abi() => {
                let place = self.place(name);
                let cgroup = (!place.is_of_others()).then(|| place.cgroup().directory().to_owned());
                Err(OtherVersion {
                    found,
                    by_hand: ByHand {
                        cgroup,
                        files: self.paths_of(name),
                    },
                    name: name.to_owned(),
                }
                .into())
            }
            _ => Ok(()),
        }
    }

    /// Whether the fence `name` is, or may be, of another version.
    #[must_use]
    pub fn is_of_another_version(&self, name: &str) -> bool {
        !self
            .version_of(name)
            .is_ok_and(|found| found.is_none_or(|found| found == abi()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_said_how_to_end_it_and_nothing_in_a_name_is_a_command() {
        let dir = tempfile::tempdir().unwrap();
        let cgroup = dir.path().join("it's; a fence");
        let by_hand = ByHand {
            cgroup: Some(cgroup.clone()),
            files: vec!["/run/x.json".into(), "/run/$(y)".into()],
        };
        assert_eq!(by_hand.to_string(), "`rm -rf /run/x.json '/run/$(y)'`");
        std::fs::create_dir(&cgroup).unwrap();
        let spelled = format!("'{}/it'\\''s; a fence'", dir.path().display());
        let text = by_hand.to_string();
        assert!(
            text.contains(&format!("rmdir {spelled} && rm -rf /run")),
            "{text}"
        );
        assert!(text.starts_with("`xargs -r kill -KILL < '"), "{text}");
        let of_others = ByHand {
            cgroup: None,
            ..by_hand
        };
        assert_eq!(of_others.to_string(), "`rm -rf /run/x.json '/run/$(y)'`");
    }
}

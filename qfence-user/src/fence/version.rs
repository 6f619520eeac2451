//! Of which version of qfence a fence is. One of another version is left alone: this program does not know what its maps,
//! files and locks mean.

use std::{fmt, path::PathBuf};

use anyhow::Result;

use super::registry::Fences;
use crate::base::{name::check_name, version::abi};

/// A fence is of another version of qfence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the fence {name:?} was made by another version of qfence (ABI {found}, and this is ABI {}): nothing of it is read or \
     changed. Give this command with that version, which ends it by `qfence-user rm`; without that version, end it by {by_hand}",
    abi()
)]
pub struct OtherVersion {
    /// Its name.
    pub name: String,
    /// Its version.
    pub found: u32,
    /// How to end it with what the kernel has.
    pub by_hand: ByHand,
}

/// The commands that end a fence of any version, for a shell of root's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ByHand {
    cgroup: PathBuf,
    /// What else there is of it.
    files: Vec<PathBuf>,
}

impl fmt::Display for ByHand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cgroup = &self.cgroup;
        if cgroup.is_dir() {
            // Linux 5.14 has a file for it.
            let kill = cgroup.join("cgroup.kill");
            if kill.exists() {
                write!(f, "`echo 1 > {}`", quoted(&kill))?;
            } else {
                let processes = cgroup.join("cgroup.procs");
                write!(f, "`xargs -r kill -KILL < {}`", quoted(&processes))?;
            }
            write!(
                f,
                ", and what its supervisor leaves of it by `rmdir {} && ",
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

/// A path as a shell takes it.
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
    /// Makes sure that the fence `name`, if there is one, is of this program's version. To be asked before anything else of
    /// it is.
    ///
    /// # Errors
    /// [`OtherVersion`] if it is not; or if that cannot be told.
    pub fn check_version(&self, name: &str) -> Result<()> {
        check_name(name)?;
        match self.version_of(name)? {
            Some(found) if found != abi() => Err(OtherVersion {
                found,
                by_hand: ByHand {
                    cgroup: self.place(name).cgroup().directory().to_owned(),
                    files: self.paths_of(name),
                },
                name: name.to_owned(),
            }
            .into()),
            _ => Ok(()),
        }
    }

    /// Whether the fence `name` is of another version, or may be.
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
            cgroup: cgroup.clone(),
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
    }
}

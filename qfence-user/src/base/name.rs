//! Names of fences: valid names, and names derived from a command.

use std::path::{Path, PathBuf};

use super::random;

/// The longest name, in bytes. In bpffs each byte can take three of the 255 that a file name may have.
const MAX_NAME: usize = 80;

/// Why a name cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// It is no file name, or the kernel reserves it.
    #[error(
        "{0:?} cannot be the name of a fence: it must be a file name of at most {MAX_NAME} bytes, \
         without control characters, and not begin with \"cgroup.\""
    )]
    Invalid(String),
    /// A fence of this name exists.
    #[error("a fence named {0:?} already exists; choose another --name (see `qfence-user ps`)")]
    InUse(String),
    /// A fence of this name exists in a part of the cgroup tree that this process does not see.
    #[error(
        "a fence named {0:?} already exists, in another part of the cgroup tree; choose another --name (see \
         `qfence-user ps`)"
    )]
    InUseElsewhere(String),
}

/// Checks that a name is valid.
///
/// # Errors
/// [`NameError::Invalid`].
pub fn check_name(name: &str) -> Result<(), NameError> {
    let valid = !name.is_empty()
        && name != "."
        && name != ".."
        && name.len() <= MAX_NAME
        && !name.starts_with("cgroup.")
        && !name
            .chars()
            .any(|character| character == '/' || character.is_control());
    if valid {
        Ok(())
    } else {
        Err(NameError::Invalid(name.to_owned()))
    }
}

/// The names of fences in a directory, and its other entries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// Valid names: as a part of a path each leads to one file in the directory.
    pub fences: Vec<String>,
    /// Paths whose names are not valid. They are only reported.
    pub others: Vec<PathBuf>,
}

impl Names {
    /// Adds the entry at `path`; `name` is its name if that is text.
    pub fn add(&mut self, name: Option<&str>, path: &Path) {
        match name {
            Some(name) if check_name(name).is_ok() => self.fences.push(name.to_owned()),
            _ => self.others.push(path.to_owned()),
        }
    }
}

/// Derives a unique name from a command: `qemu-system-x86_64-5f3a9c`.
#[must_use]
pub fn derive_name(command: &Path) -> String {
    let base = command
        .file_name()
        .map(|name| name.to_string_lossy())
        .unwrap_or_default();
    let plain = |character: char| match character {
        'A'..='Z' | 'a'..='z' | '0'..='9' | '_' | '-' => character,
        _ => '-',
    };
    let base: String = base.chars().take(32).map(plain).collect();
    let unique = random::number() & 0xff_ffff;
    format!("{base}-{unique:06x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_names_are_names() {
        for name in ["vm1", "my.vm", "a b", "gäste", "-x", &"x".repeat(MAX_NAME)] {
            assert_eq!(check_name(name), Ok(()));
        }
    }

    #[test]
    fn what_is_no_file_name_is_no_name() {
        let long = "x".repeat(MAX_NAME + 1);
        for name in [
            "",
            ".",
            "..",
            "a/b",
            "/",
            "a\nb",
            "a\0b",
            "cgroup.procs",
            &long,
        ] {
            assert_eq!(check_name(name), Err(NameError::Invalid(name.to_owned())));
        }
    }

    #[test]
    fn a_derived_name_is_a_name_and_another_each_time() {
        let name = derive_name(Path::new("/usr/bin/odd name.sh"));
        assert!(name.starts_with("odd-name-sh-"), "{name}");
        assert_eq!(check_name(&name), Ok(()));
        assert_ne!(name, derive_name(Path::new("/usr/bin/odd name.sh")));
        assert_eq!(check_name(&derive_name(Path::new("/"))), Ok(()));
    }
}

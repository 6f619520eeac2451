//! Names of fences: what can be one, and one made from a command.

use std::path::{Path, PathBuf};

use super::random;

/// The longest name. In bpffs a byte of it can take three, of 255.
const MAX_NAME: usize = 80;

/// A name that cannot be one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// It is no file name, or one that the kernel keeps for itself.
    #[error(
        "{0:?} cannot be the name of a fence: it must be a file name of at most {MAX_NAME} bytes, \
         without control characters, and not begin with \"cgroup.\""
    )]
    Invalid(String),
    /// A fence of that name is there.
    #[error("a fence named {0:?} is there already: see `qfence-user ps`, or give another --name")]
    InUse(String),
    /// A fence of that name is there that this process does not see.
    #[error(
        "a fence named {0:?} is there already, in another part of the cgroup tree: see `qfence-user ps`, or give another \
         --name"
    )]
    InUseElsewhere(String),
}

/// Checks that a name can be one.
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

/// The names of fences that were found in a directory, and what else was.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// The names, each of which can be one: as a part of a path it leads nowhere else.
    pub fences: Vec<String>,
    /// The paths of what has no such name. Nothing is done with them, but to tell.
    pub others: Vec<PathBuf>,
}

impl Names {
    /// Adds what was found at `path`: of that name, if it is text.
    pub fn add(&mut self, name: Option<&str>, path: &Path) {
        match name {
            Some(name) if check_name(name).is_ok() => self.fences.push(name.to_owned()),
            _ => self.others.push(path.to_owned()),
        }
    }
}

/// A name made from a command and something unique: `qemu-system-x86_64-5f3a9c`.
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

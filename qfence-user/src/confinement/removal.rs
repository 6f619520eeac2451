//! Directories in which a command makes files or sockets, and in which other files are.

use std::{
    ffi::OsString,
    fmt, io,
    path::{Path, PathBuf},
};

use super::Grants;
use crate::base::printable::printable;

/// A directory in which the command makes files or sockets, so that it can also remove and rename the other files there,
/// and in the directories below: Linux restricts that by directory, not by file (`LANDLOCK_ACCESS_FS_REMOVE_FILE`,
/// landlock(7)).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removal {
    /// The directory.
    pub directory: PathBuf,
    /// One of the other files; `None` if the directory could not be read.
    pub example: Option<OsString>,
}

/// The directories of [`Grants::make`] in which other files are than those that the command may change anyway. `entries`
/// returns the names in a directory.
#[must_use]
pub fn removals(
    grants: &Grants,
    entries: impl Fn(&Path) -> io::Result<Vec<OsString>>,
) -> Vec<Removal> {
    let may_change = |path: &Path| path.ancestors().any(|path| grants.write.contains(path));
    let made_in = grants.make.iter().filter(|path| !may_change(path));
    let removal = |directory: &PathBuf| {
        let example = match entries(directory) {
            Ok(names) => {
                let others = names
                    .into_iter()
                    .filter(|name| !may_change(&directory.join(name)));
                Some(others.min()?)
            }
            // It is made later.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(_) => None,
        };
        Some(Removal {
            directory: directory.clone(),
            example,
        })
    };
    made_in.filter_map(removal).collect()
}

impl fmt::Display for Removal {
    /// The warning.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let directory = printable(self.directory.as_os_str().as_encoded_bytes());
        write!(
            f,
            "the command makes files or sockets in {directory}, so it can also remove the other files there and below"
        )?;
        if let Some(example) = &self.example {
            write!(f, ", such as {}", printable(example.as_encoded_bytes()))?;
        }
        f.write_str("; give them a directory of their own")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(directory: &Path) -> io::Result<Vec<OsString>> {
        match directory.to_str() {
            Some("/run/vm") => Ok(vec![]),
            Some("/vm") => Ok(vec!["disk".into()]),
            Some("/home/u") => Ok(vec!["b".into(), ".profile\u{1b}".into(), "sub".into()]),
            Some("/closed") => Err(io::ErrorKind::PermissionDenied.into()),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn warnings(make: &[&str], write: &[&str]) -> Vec<String> {
        let grants = Grants {
            make: make.iter().map(PathBuf::from).collect(),
            write: write.iter().map(PathBuf::from).collect(),
            ..Grants::default()
        };
        let removals = removals(&grants, entries);
        removals.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_directory_with_other_files_is_warned_of() {
        assert_eq!(
            warnings(&["/home/u", "/run/vm", "/missing"], &["/vm/disk"]),
            [
                "the command makes files or sockets in /home/u, so it can also remove the other files \
                 there and below, such as .profile\\x1b; give them a directory of their own"
            ]
        );
        assert_eq!(
            warnings(&["/closed"], &[]),
            [
                "the command makes files or sockets in /closed, so it can also remove the other files \
                 there and below; give them a directory of their own"
            ]
        );
    }

    #[test]
    fn files_that_the_command_may_change_are_no_others() {
        assert_eq!(warnings(&["/vm"], &["/vm/disk"]), [""; 0]);
        assert_eq!(warnings(&["/home/u"], &["/home"]), [""; 0]);
        assert_eq!(warnings(&["/home/u"], &["/home/u/.profile\u{1b}"]).len(), 1);
        assert_eq!(warnings(&["/closed"], &["/closed"]), [""; 0]);
        assert_eq!(warnings(&["/vm"], &[]).len(), 1);
    }
}

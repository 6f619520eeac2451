//! Finds a profile by name or path.

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    fs, io,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use nix::unistd::Uid;

use super::{Profile, ProfileError, file, shipped::SHIPPED};
use crate::base::printable::printable;

/// The suffix of the files.
const SUFFIX: &str = ".toml";

/// All profiles that can be named.
#[derive(Clone, Debug)]
pub struct Profiles {
    directory: PathBuf,
    owners: Vec<u32>,
}

impl Profiles {
    /// The profiles in `directory`, whether it exists or not, and the shipped ones.
    ///
    /// A file must belong to root or to one of `owners`: the caller, with or without sudo.
    #[must_use]
    pub fn new(directory: &Path, owners: impl IntoIterator<Item = Uid>) -> Self {
        let root = Uid::from_raw(0);
        let owners = owners.into_iter().chain([root]).map(Uid::as_raw);
        Self {
            directory: directory.to_owned(),
            owners: owners.collect(),
        }
    }

    /// Finds a profile by name. Text with a `/`, or with `.toml` at its end, is a path.
    ///
    /// A file `NAME.toml` in the directory overrides a shipped profile of that name, as a unit in /etc overrides one
    /// in /usr. If that file is invalid, this is an error: the shipped profile is not what the administrator wants.
    ///
    /// # Errors
    /// If there is no such profile, another user could change it, or it cannot be parsed.
    pub fn find(&self, name_or_path: &OsStr) -> Result<Profile, ProfileError> {
        let (name, path, text) = self.read(name_or_path)?;
        Profile::parse(&name, path.as_deref(), &text)
    }

    /// The text of the file of a profile, which is found as by [`Self::find`].
    ///
    /// # Errors
    /// If there is no such profile, or another user could change it.
    pub fn text(&self, name_or_path: &OsStr) -> Result<String, ProfileError> {
        self.read(name_or_path).map(|(_, _, text)| text)
    }

    /// The name, path and text of a profile.
    fn read(
        &self,
        name_or_path: &OsStr,
    ) -> Result<(String, Option<PathBuf>, String), ProfileError> {
        let bytes = name_or_path.as_bytes();
        if bytes.contains(&b'/') || bytes.ends_with(SUFFIX.as_bytes()) {
            return self.load(Path::new(name_or_path));
        }
        let name = printable(bytes);
        if !is_name(&name) {
            return Err(ProfileError::Name { name });
        }
        let path = self.directory.join(format!("{name}{SUFFIX}"));
        // Links are not followed: a dangling link is an error, not a missing file.
        match path.symlink_metadata() {
            Ok(_) => return self.load(&path),
            Err(error) if is_absent(&error) => {}
            Err(source) => return Err(ProfileError::Read { path, source }),
        }
        match SHIPPED.iter().find(|shipped| shipped.name == name) {
            Some(shipped) => Ok((name, None, shipped.text.to_owned())),
            None => Err(ProfileError::Unknown {
                name,
                directory: self.directory.clone(),
                names: self.names()?.into_iter().collect(),
            }),
        }
    }

    /// The names of all profiles.
    ///
    /// # Errors
    /// If the directory exists and cannot be listed.
    pub fn names(&self) -> Result<BTreeSet<String>, ProfileError> {
        let mut names: BTreeSet<_> = SHIPPED.map(|shipped| shipped.name.to_owned()).into();
        let read = |source| ProfileError::Read {
            path: self.directory.clone(),
            source,
        };
        let entries = match fs::read_dir(&self.directory) {
            Ok(entries) => entries,
            Err(error) if is_absent(&error) => return Ok(names),
            Err(error) => return Err(read(error)),
        };
        for entry in entries {
            let file = entry.map_err(read)?.file_name();
            let name = file.to_str().and_then(|file| file.strip_suffix(SUFFIX));
            names.extend(name.filter(|name| is_name(name)).map(String::from));
        }
        Ok(names)
    }

    fn load(&self, path: &Path) -> Result<(String, Option<PathBuf>, String), ProfileError> {
        let text = file::read(path, &self.owners)?;
        let stem = path.file_stem().unwrap_or_default();
        Ok((printable(stem.as_bytes()), Some(path.to_owned()), text))
    }
}

fn is_name(name: &str) -> bool {
    let plain = |byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-');
    !name.is_empty() && name.bytes().all(plain)
}

fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

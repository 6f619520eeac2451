//! A name or a path to a profile.

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

/// The ending of the files' names.
const SUFFIX: &str = ".toml";

/// All profiles that can be named.
#[derive(Clone, Debug)]
pub struct Profiles {
    directory: PathBuf,
    owners: Vec<u32>,
}

impl Profiles {
    /// The profiles in `directory`, which need not be there, and those that come with qfence.
    ///
    /// A file may belong to root, or to one of `owners`: who calls, with or without sudo.
    #[must_use]
    pub fn new(directory: &Path, owners: impl IntoIterator<Item = Uid>) -> Self {
        let root = Uid::from_raw(0);
        let owners = owners.into_iter().chain([root]).map(Uid::as_raw);
        Self {
            directory: directory.to_owned(),
            owners: owners.collect(),
        }
    }

    /// The profile of a name, or at a path: that is what has a `/` in it or ends in `.toml`.
    ///
    /// A file `NAME.toml` in the directory goes before a profile of that name that comes with
    /// qfence, as a unit in /etc goes before one in /usr. If there is one and it is no good, that is
    /// an error: the other one is not what was meant.
    ///
    /// # Errors
    /// If there is no such profile, or it is not to be trusted, or not understood.
    pub fn find(&self, name_or_path: &OsStr) -> Result<Profile, ProfileError> {
        let bytes = name_or_path.as_bytes();
        if bytes.contains(&b'/') || bytes.ends_with(SUFFIX.as_bytes()) {
            return self.load(Path::new(name_or_path));
        }
        let name = printable(bytes);
        if !is_name(&name) {
            return Err(ProfileError::Name { name });
        }
        let path = self.directory.join(format!("{name}{SUFFIX}"));
        // Not what it leads to: a link that leads nowhere is there, and an error.
        match path.symlink_metadata() {
            Ok(_) => return self.load(&path),
            Err(error) if is_absent(&error) => {}
            Err(source) => return Err(ProfileError::Read { path, source }),
        }
        match SHIPPED.iter().find(|shipped| shipped.name == name) {
            Some(shipped) => Profile::parse(shipped.name, None, shipped.text),
            None => Err(ProfileError::Unknown {
                name,
                directory: self.directory.clone(),
                names: self.names()?.into_iter().collect(),
            }),
        }
    }

    /// The names that there are.
    ///
    /// # Errors
    /// If the directory is there and cannot be listed.
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

    fn load(&self, path: &Path) -> Result<Profile, ProfileError> {
        let text = file::read(path, &self.owners)?;
        let stem = path.file_stem().unwrap_or_default();
        Profile::parse(&printable(stem.as_bytes()), Some(path), &text)
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

//! The name of a Unix socket.

use std::{
    ffi::OsString,
    os::unix::ffi::{OsStrExt as _, OsStringExt as _},
    path::{Component, Path, PathBuf},
};

/// The most bytes of a name: `sun_path` of `struct sockaddr_un` (unix(7)).
pub const LONGEST: usize = 108;

/// The name of a Unix socket.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum UnixName {
    /// A path in the file system, absolute and without `..`.
    Path(PathBuf),
    /// An abstract name, without the zero byte before it.
    Abstract(Vec<u8>),
}

impl UnixName {
    /// Parses a name as `--allow-unix` takes it: `/PATH`, or `@NAME` for an abstract one.
    ///
    /// # Errors
    /// Why it is not a name.
    pub fn parse(text: OsString) -> Result<Self, String> {
        if let Some(name) = text.as_bytes().strip_prefix(b"@") {
            return match name.len() {
                0 => Err("the name after @ is empty".into()),
                length if length >= LONGEST => Err("the name is longer than 107 bytes".into()),
                _ => Ok(Self::Abstract(name.to_vec())),
            };
        }
        let path = Path::new(&text);
        let is_plain = |part: Component| matches!(part, Component::RootDir | Component::Normal(_));
        if !path.is_absolute() || !path.components().all(is_plain) {
            return Err(
                "the path of a socket is absolute, and has no `..`; an abstract name begins with @"
                    .into(),
            );
        }
        if text.len() >= LONGEST {
            return Err("the path of a socket has at most 107 bytes".into());
        }
        Ok(Self::Path(path.components().collect()))
    }

    /// The bytes of `sun_path` that a process gives for this name, without a zero byte at the end.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Path(path) => path.clone().into_os_string().into_vec(),
            Self::Abstract(name) => [&[0][..], name].concat(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_path_or_abstract() {
        let parse = |text: &str| UnixName::parse(text.into());
        assert_eq!(parse("/run//x"), Ok(UnixName::Path("/run/x".into())));
        assert_eq!(parse("@x"), Ok(UnixName::Abstract(b"x".to_vec())));
        for wrong in ["", "x", "@", "/run/../x", &format!("@{}", "x".repeat(108))] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
        assert_eq!(parse("@x").unwrap().bytes(), b"\0x");
        assert_eq!(parse("/x").unwrap().bytes(), b"/x");
    }
}

//! Where metrics are served, and a listener there.

use std::{
    ffi::{OsStr, OsString},
    fmt,
    net::{SocketAddr, TcpListener},
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    str::FromStr,
};

use anyhow::{Context, Result, bail};
use nix::sys::stat::{SFlag, fchmod};
use socket2::{Domain, SockAddr, Socket, Type};

use crate::base::files::{PRIVATE_FILE, directory::Directory, file_type::other_than_regular};

/// How many connections may wait to be accepted.
const BACKLOG: i32 = 128;

/// An address to listen on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// TCP.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix(PathBuf),
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_prefix("unix:") {
            Some("") => Err("give the path of a socket after unix:".into()),
            Some(path) => Ok(Self::Unix(path.into())),
            None => text.parse().map(Self::Tcp).map_err(|_| {
                "give an address and a port, such as 127.0.0.1:9469 or [::1]:9469, or unix:PATH"
                    .into()
            }),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Something that listens. The file of a Unix socket goes with it.
#[derive(Debug)]
pub enum Listener {
    /// TCP.
    Tcp(TcpListener),
    /// A Unix socket, and its file.
    Unix(UnixListener, SocketFile),
}

/// The file of a Unix socket, as long as this lives.
#[derive(Debug)]
pub struct SocketFile {
    directory: Directory,
    name: OsString,
    /// Its device and inode.
    made: Option<(u64, u64)>,
}

impl Listener {
    /// Listens at an address. A socket's file that nobody listens at any more is replaced.
    ///
    /// # Errors
    /// If it is in use, is no socket, or cannot be made.
    pub fn bind(address: &Address) -> Result<Self> {
        let context = || format!("cannot serve metrics at {address}");
        let listener = match address {
            Address::Tcp(address) => {
                let listener = TcpListener::bind(address).with_context(context)?;
                listener.set_nonblocking(true).with_context(context)?;
                Self::Tcp(listener)
            }
            Address::Unix(path) => {
                let (listener, file) = bind_unix(path).with_context(context)?;
                Self::Unix(listener, file)
            }
        };
        Ok(listener)
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Whoever took it away has spared this the trouble, and what another made in its place is not ours.
        if self.made.is_some() && inode(&self.directory, &self.name) == self.made {
            let _ = self.directory.remove(&self.name);
        }
    }
}

fn bind_unix(path: &Path) -> Result<(UnixListener, SocketFile)> {
    let (directory, name) = Directory::of(path)?;
    clear(&directory, name)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // The file gets the mode that the socket has, less the umask (`unix_bind_bsd` in net/unix/af_unix.c).
    fchmod(&socket, PRIVATE_FILE)?;
    // In the directory that was opened, whatever its path leads to by now.
    socket.bind(&SockAddr::unix(directory.path_by_descriptor(name))?)?;
    let file = SocketFile {
        made: inode(&directory, name),
        name: name.to_owned(),
        directory,
    };
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok((socket.into(), file))
}

/// Which file has a name, by device and inode.
fn inode(directory: &Directory, name: &OsStr) -> Option<(u64, u64)> {
    let found = directory.look_at(name).ok()??;
    Some((found.st_dev, found.st_ino))
}

/// Removes the file of a socket that nobody listens at.
fn clear(directory: &Directory, name: &OsStr) -> Result<()> {
    let Some(found) = directory.look_at(name)? else {
        return Ok(());
    };
    let kind = SFlag::from_bits_truncate(found.st_mode) & SFlag::S_IFMT;
    if kind != SFlag::S_IFSOCK {
        let kind = other_than_regular(found.st_mode).unwrap_or("a file");
        bail!("there is {kind} that is no socket");
    }
    if UnixStream::connect(directory.path_by_descriptor(name)).is_ok() {
        bail!("somebody listens there already");
    }
    Ok(directory.remove(name)?)
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::fs::{PermissionsExt as _, symlink},
    };

    use super::*;

    #[test]
    fn addresses_are_what_they_say() {
        for text in ["127.0.0.1:9469", "[::1]:9469", "unix:/run/x.sock"] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
        for text in ["", "9469", "localhost:9469", "127.0.0.1:70000", "unix:"] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_sockets_file_goes_with_it_and_a_stale_one_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics");
        let address = Address::Unix(path.clone());
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let listener = Listener::bind(&address).unwrap();
        let error = format!("{:#}", Listener::bind(&address).unwrap_err());
        assert!(error.contains("somebody listens there already"), "{error}");
        assert!(path.exists());
        let mode = fs::symlink_metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        drop(listener);
        assert!(!path.exists());
        fs::write(&path, "").unwrap();
        let error = format!("{:#}", Listener::bind(&address).unwrap_err());
        assert!(
            error.contains("there is a file that is no socket"),
            "{error}"
        );
        assert!(path.exists());
    }

    #[test]
    fn a_link_is_not_followed_and_anothers_file_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let (path, link) = (dir.path().join("metrics"), dir.path().join("link"));
        let listener = Listener::bind(&Address::Unix(path.clone())).unwrap();
        symlink(dir.path().join("none"), &link).unwrap();
        let error = format!("{:#}", Listener::bind(&Address::Unix(link)).unwrap_err());
        assert!(
            error.contains("a symbolic link that is no socket"),
            "{error}"
        );
        fs::remove_file(&path).unwrap();
        fs::write(&path, "another's").unwrap();
        drop(listener);
        assert!(path.exists());
    }
}

//! The addresses that metrics can be served at, and their listeners.

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

/// The maximum number of connections that wait to be accepted.
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

/// A listener. Dropping it removes the file of its Unix socket.
#[derive(Debug)]
pub enum Listener {
    /// TCP.
    Tcp(TcpListener),
    /// A Unix socket, and its file.
    Unix(UnixListener, SocketFile),
}

/// The file of a Unix socket. Dropping this removes it.
#[derive(Debug)]
pub struct SocketFile {
    directory: Directory,
    name: OsString,
    /// The device and the inode of the file.
    made: Option<(u64, u64)>,
}

impl Listener {
    /// Listens at an address. The file of a socket without a listener is replaced.
    ///
    /// # Errors
    /// If the address is in use, the path is not a socket, or the socket cannot be made.
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
        // If the file was removed, there is nothing to do. If it was replaced, it is not this server's file.
        if self.made.is_some() && inode(&self.directory, &self.name) == self.made {
            let _ = self.directory.remove(&self.name);
        }
    }
}

fn bind_unix(path: &Path) -> Result<(UnixListener, SocketFile)> {
    let (directory, name) = Directory::of(path)?;
    clear(&directory, name)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // The file gets the mode of the socket, less the umask (`unix_bind_bsd` in net/unix/af_unix.c).
    fchmod(&socket, PRIVATE_FILE)?;
    // Binds in the open directory, even if its path leads elsewhere by now.
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

/// The device and the inode of a file.
fn inode(directory: &Directory, name: &OsStr) -> Option<(u64, u64)> {
    let found = directory.look_at(name).ok()??;
    Some((found.st_dev, found.st_ino))
}

/// Removes the file of a socket without a listener.
fn clear(directory: &Directory, name: &OsStr) -> Result<()> {
    let Some(found) = directory.look_at(name)? else {
        return Ok(());
    };
    let kind = SFlag::from_bits_truncate(found.st_mode) & SFlag::S_IFMT;
    if kind != SFlag::S_IFSOCK {
        let kind = other_than_regular(found.st_mode).unwrap_or("a file");
        bail!("the path is {kind}, not a socket");
    }
    if UnixStream::connect(directory.path_by_descriptor(name)).is_ok() {
        bail!("another process already listens there");
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
        assert!(
            error.contains("another process already listens there"),
            "{error}"
        );
        assert!(path.exists());
        let mode = fs::symlink_metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        drop(listener);
        assert!(!path.exists());
        fs::write(&path, "").unwrap();
        let error = format!("{:#}", Listener::bind(&address).unwrap_err());
        assert!(
            error.contains("the path is a file, not a socket"),
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
        assert!(error.contains("a symbolic link, not a socket"), "{error}");
        fs::remove_file(&path).unwrap();
        fs::write(&path, "another's").unwrap();
        drop(listener);
        assert!(path.exists());
    }
}

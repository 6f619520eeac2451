//! Where metrics are served, and a listener there.

use std::{
    fmt, fs, io,
    net::{SocketAddr, TcpListener},
    os::unix::{
        fs::FileTypeExt as _,
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    str::FromStr,
};

use anyhow::{Context, Result, bail};

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
    Unix(UnixListener, PathBuf),
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
                clear(path).with_context(context)?;
                let listener = UnixListener::bind(path).with_context(context)?;
                let listener = Self::Unix(listener, path.clone());
                if let Self::Unix(listener, _) = &listener {
                    listener.set_nonblocking(true).with_context(context)?;
                }
                listener
            }
        };
        Ok(listener)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Self::Unix(_, path) = self {
            // Whoever took it away has spared this the trouble.
            let _ = fs::remove_file(path);
        }
    }
}

/// Removes the file of a socket that nobody listens at.
fn clear(path: &Path) -> Result<()> {
    let file = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        found => found?,
    };
    if !file.file_type().is_socket() {
        bail!("there is a file that is no socket");
    }
    if UnixStream::connect(path).is_ok() {
        bail!("somebody listens there already");
    }
    Ok(fs::remove_file(path)?)
}

#[cfg(test)]
mod tests {
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
        drop(listener);
        assert!(!path.exists());
        fs::write(&path, "").unwrap();
        let error = format!("{:#}", Listener::bind(&address).unwrap_err());
        assert!(error.contains("no socket"), "{error}");
        assert!(path.exists());
    }
}

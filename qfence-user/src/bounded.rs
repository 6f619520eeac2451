//! Reads small files, of which somebody else may have made more than they should be.

use std::{
    fs::File,
    io::{self, Read as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use nix::libc::{O_NOCTTY, O_NONBLOCK};

/// Reads a file of at most `longest` bytes. It does not wait for the other end of a pipe.
///
/// # Errors
/// If it cannot be read, or is longer.
pub fn read(path: &Path, longest: usize) -> io::Result<Vec<u8>> {
    let file = File::options()
        .read(true)
        .custom_flags(O_NONBLOCK | O_NOCTTY)
        .open(path)?;
    let mut bytes = Vec::new();
    let longest = longest as u64;
    if file.take(longest + 1).read_to_end(&mut bytes)? as u64 > longest {
        return Err(io::Error::other(format!("more than {longest} bytes")));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_is_longer_is_an_error_and_a_pipe_is_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, "four").unwrap();
        assert_eq!(read(&path, 4).unwrap(), b"four");
        assert!(read(&path, 3).is_err());
        assert!(read(Path::new("/dev/zero"), 1000).is_err());
        let pipe = dir.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(read(&pipe, 4).unwrap(), b"");
    }
}

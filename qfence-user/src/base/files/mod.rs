//! Files that root writes and reads. Each is made so that other users cannot choose the file that is written to.
//!
//! | file | mode | written |
//! |---|---|---|
//! | /run/qfence/ | 0700 | made once, and checked before each use |
//! | /run/qfence/NAME.json | 0600 | whole, renamed into place; marked by the supervisor |
//! | /run/qfence/NAME.policy, NAME.names | 0600 | whole, renamed into place |
//! | /run/qfence/NAME.log, NAME.log.1 | 0600 | appended to, renamed when full |
//! | /run/qfence/nri/ | 0700 | made when `nri-plugin` first fences a container late; a lock |
//! | /sys/fs/bpf/qfence/, and NAME/ in it | 0700 | made once, and checked before each use |
//! | /sys/fs/bpf/qfence-ended/ | 0700 | the same |
//! | the file of `metrics --textfile` | 0644 | whole, renamed into place |
//! | the socket of `--metrics unix:PATH` | 0600 | replaces a socket that nobody listens on |
//! | the file of `--log` | 0644 less the umask | appended to, renamed when full, opened again on SIGUSR1 |
//!
//! All belong to root.
//!
//! | module | its one job |
//! |---|---|
//! | [`directory`] | a directory that is opened once, and checked if it must be root's |
//! | `owner` | whether a directory is root's, and its permissions |
//! | [`staged`] | a file that is written whole, and then renamed over the old one |
//! | `walk` | walks a path, without links that others can have made |
//! | [`log`] | a file that is appended to, wherever it is |
//! | [`rotation`] | begins such a file anew, and keeps a number of earlier ones |
//! | `trusted` | whether a log file that exists may be appended to |
//! | [`bounded`] | reads a file that others write, up to a limit |
//! | [`file_type`] | the type of a file, in words |

use std::{fs, io, path::Path};

use nix::sys::stat::Mode;

pub mod bounded;
pub mod directory;
pub mod file_type;
pub mod in_root;
pub mod log;
mod owner;
pub mod rotation;
pub mod staged;
mod trusted;
mod walk;

/// The entries of a directory; none if it does not exist.
///
/// # Errors
/// Errors of reading it.
pub fn entries(directory: &Path) -> io::Result<Vec<fs::DirEntry>> {
    match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        entries => entries?.collect(),
    }
}

/// The mode of files that only root can use.
pub const PRIVATE_FILE: Mode = Mode::from_bits_truncate(0o600);

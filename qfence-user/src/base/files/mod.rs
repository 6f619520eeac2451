//! The files that root writes and reads: each is made so that nobody else decides what is written to.
//!
//! | file | mode | written |
//! |---|---|---|
//! | /run/qfence/ | 0700 | made once, and looked at before each use |
//! | /run/qfence/NAME.json | 0600 | whole, renamed into place; marked by the supervisor |
//! | /run/qfence/NAME.policy | 0600 | whole, renamed into place |
//! | /run/qfence/NAME.log, NAME.log.1 | 0600 | appended to, renamed when full |
//! | /sys/fs/bpf/qfence/, and NAME/ in it | 0700 | made once, and looked at before each use |
//! | /sys/fs/bpf/qfence-ended/ | 0700 | the same |
//! | what `metrics --textfile` names | 0644 | whole, renamed into place |
//! | the socket of `--metrics unix:PATH` | 0600 | made anew, where nobody listens at the one before |
//! | what `--log` names | 0644 less the umask | appended to, opened anew on SIGUSR1 |
//!
//! All belong to root.
//!
//! | module | its one job |
//! |---|---|
//! | [`directory`] | a directory that is opened once, and checked where it has to be root's alone |
//! | `owner` | whether a directory is root's, and its permissions |
//! | [`staged`] | a file that is written whole and then renamed over the one before |
//! | `walk` | the way along a path, without links that others can have made |
//! | [`log`] | a file that is appended to, wherever it is |
//! | `trusted` | whether a log file that exists may be appended to |
//! | [`bounded`] | reads a file of others, up to a bound |
//! | [`file_type`] | what a file is, in words |

use std::{fs, io, path::Path};

use nix::sys::stat::Mode;

pub mod bounded;
pub mod directory;
pub mod file_type;
pub mod log;
mod owner;
pub mod staged;
mod trusted;
mod walk;

/// What is in a directory; nothing where there is none.
///
/// # Errors
/// What reading it fails with.
pub fn entries(directory: &Path) -> io::Result<Vec<fs::DirEntry>> {
    match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        entries => entries?.collect(),
    }
}

/// The mode of files that are root's alone.
pub const PRIVATE_FILE: Mode = Mode::from_bits_truncate(0o600);

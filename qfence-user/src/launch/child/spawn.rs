//! Makes the child, in its cgroup from the first, and has it execute the command.
//!
//! The standard library's way makes it here and leaves it to move, and to move a process takes ten milliseconds
//! and more: the kernel waits for all that fork or exec just then (`cgroup_attach_lock` in
//! kernel/cgroup/cgroup.c). To be born in a cgroup takes no time.

use std::{
    convert::Infallible,
    env,
    ffi::{CString, OsStr, OsString, c_char, c_int},
    fs::File,
    io::{self, Write},
    mem,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    ptr,
};

use nix::{errno::Errno, libc};

use super::process::Child;
use crate::fence::cgroup::Entry;

/// `CLONE_INTO_CGROUP` of linux/sched.h (Linux 5.7), which does not fit into the type that libc has for flags.
const CLONE_INTO_CGROUP: u64 = 1 << 33;

/// What is executed, as exec takes it. It is looked for in the PATH of this process, which nobody changes for the
/// command.
pub(super) struct Words {
    arguments: Vec<CString>,
    /// `None` for this process's own.
    environment: Option<Vec<CString>>,
}

impl Words {
    /// A command, and what is set and unset in its environment.
    ///
    /// # Errors
    /// If there is a zero byte in any word.
    pub(super) fn new(
        command: &[OsString],
        changes: &[(&'static str, Option<OsString>)],
    ) -> io::Result<Self> {
        let text = |word: &OsStr| CString::new(word.as_bytes()).map_err(io::Error::other);
        let is_changed = |name: &OsStr| changes.iter().any(|(changed, _)| name == *changed);
        let kept = env::vars_os().filter(|(name, _)| !is_changed(name));
        let set = changes
            .iter()
            .filter_map(|(name, value)| Some((OsString::from(name), value.clone()?)));
        let line = |(mut name, value): (OsString, OsString)| {
            name.push("=");
            name.push(value);
            text(&name)
        };
        let environment: io::Result<Vec<_>> = kept.chain(set).map(line).collect();
        Ok(Self {
            arguments: command
                .iter()
                .map(|word| text(word))
                .collect::<Result<_, _>>()?,
            environment: match changes {
                [] => None,
                _ => Some(environment?),
            },
        })
    }
}

/// Makes a child that takes the steps of `before_exec` and executes the command; where anything of that fails it
/// writes the error to `failure` and ends. `before_exec` is told whether the child still is to move into the
/// cgroup. It and all it has is closed here when this returns.
///
/// # Errors
/// If there is no child.
///
/// The child has the signal mask of this thread until `before_exec` gives it another.
///
/// # Safety
/// `before_exec` makes system calls alone: it neither allocates nor takes locks, nor calls what the C library
/// would have all threads do (setuid and its like), for in the child there is one, of which the library was not told.
pub(super) unsafe fn spawn(
    words: &Words,
    entry: Option<Entry>,
    stdout: Option<OwnedFd>,
    failure: &OwnedFd,
    mut before_exec: impl FnMut(Option<&mut File>) -> io::Result<()>,
) -> io::Result<Child> {
    let arguments = pointers(&words.arguments);
    let environment = words.environment.as_deref().map(pointers);
    let (cgroup, mut procs) = match entry {
        Some(Entry { directory, procs }) => (Some(directory), Some(procs)),
        None => (None, None),
    };
    let born_there = cgroup.map(|cgroup| clone(CLONE_INTO_CGROUP, &cgroup));
    // Not everywhere may clone3(2) be called, and not into every cgroup: what is wrong there, moving tells.
    let (pid, procs) = match born_there {
        Some(Ok(pid)) => (pid, None),
        Some(Err(_)) | None => (fork()?, procs.as_mut()),
    };
    if pid != 0 {
        return Child::new(pid);
    }
    let run = || -> io::Result<Infallible> {
        // SAFETY: the default for SIGPIPE is no handler.
        unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
        if let Some(stdout) = &stdout {
            // SAFETY: a descriptor that is open, and one that is this process's own to lose.
            Errno::result(unsafe { libc::dup2(stdout.as_raw_fd(), libc::STDOUT_FILENO) })?;
        }
        before_exec(procs)?;
        exec(&arguments, environment.as_deref())
    };
    let error = match run() {
        Err(error) => error,
        Ok(never) => match never {},
    };
    let number = error.raw_os_error().unwrap_or(libc::EIO).to_ne_bytes();
    let [a, b, c, d] = number;
    let _ = nix::unistd::write(failure, &[FAILED, a, b, c, d]);
    // SAFETY: it ends the process, and runs nothing before.
    unsafe { libc::_exit(1) }
}

/// What comes before the number of an error.
pub(super) const FAILED: u8 = 0xff;

/// The error in what the child wrote, and what is before it.
pub(super) fn failure(told: &[u8]) -> (&[u8], Option<io::Error>) {
    match told {
        [before @ .., FAILED, a, b, c, d] => {
            let number = i32::from_ne_bytes([*a, *b, *c, *d]);
            (before, Some(io::Error::from_raw_os_error(number)))
        }
        _ => (told, None),
    }
}

/// A process like this one, with this thread alone; 0 in it.
fn clone(flags: u64, cgroup: &File) -> io::Result<libc::pid_t> {
    // SAFETY: a struct of integers, for which zero is a value.
    let mut arguments: libc::clone_args = unsafe { mem::zeroed() };
    arguments.flags = flags;
    arguments.exit_signal = u64::try_from(libc::SIGCHLD).unwrap_or_default();
    arguments.cgroup = u64::try_from(cgroup.as_raw_fd()).unwrap_or_default();
    // SAFETY: without flags to share memory this is a fork; what the child may do the caller of `spawn` promised.
    let pid = unsafe {
        libc::syscall(
            libc::SYS_clone3,
            &raw mut arguments,
            size_of::<libc::clone_args>(),
        )
    };
    let pid = Errno::result(pid)?;
    c_int::try_from(pid).map_err(io::Error::other)
}

fn fork() -> io::Result<libc::pid_t> {
    // SAFETY: what the child may do the caller of `spawn` promised.
    Ok(Errno::result(unsafe { libc::fork() })?)
}

/// Executes the command; returns if that fails.
fn exec(
    arguments: &[*const c_char],
    environment: Option<&[*const c_char]>,
) -> io::Result<Infallible> {
    let Some(program) = arguments.first() else {
        return Err(Errno::EINVAL.into());
    };
    match environment {
        // SAFETY: strings that end in zero, in lists that end in null, all of them alive.
        Some(environment) => unsafe {
            libc::execvpe(*program, arguments.as_ptr(), environment.as_ptr())
        },
        // SAFETY: as above.
        None => unsafe { libc::execvp(*program, arguments.as_ptr()) },
    };
    Err(io::Error::last_os_error())
}

/// The list of strings that exec takes.
fn pointers(words: &[CString]) -> Vec<*const c_char> {
    words
        .iter()
        .map(|word| word.as_ptr())
        .chain([ptr::null()])
        .collect()
}

/// Moves this process into the cgroup whose `cgroup.procs` that is.
///
/// # Errors
/// What the kernel says.
pub(super) fn enter(procs: &mut File) -> io::Result<()> {
    // "0" is whoever writes it.
    procs.write_all(b"0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_comes_after_what_was_told_before() {
        let number = 2_i32.to_ne_bytes();
        let told = [&[0, 1][..], &[FAILED], &number].concat();
        let (before, error) = failure(&told);
        assert_eq!(before, [0, 1]);
        assert_eq!(error.and_then(|error| error.raw_os_error()), Some(2));
        assert!(failure(&[0, 1, 2]).1.is_none());
        assert!(failure(&[]).1.is_none());
    }

    #[test]
    fn what_is_set_takes_the_place_of_what_was() {
        let words = |changes| Words::new(&["true".into()], changes).unwrap().environment;
        assert_eq!(words(&[]), None);
        let changed = words(&[("PATH", Some("/nowhere".into())), ("HOME", None)]).unwrap();
        let of = |name: &str| {
            let begins = |line: &&CString| line.as_bytes().starts_with(name.as_bytes());
            changed.iter().filter(begins).collect::<Vec<_>>()
        };
        assert_eq!(of("PATH="), [c"PATH=/nowhere"]);
        assert!(of("HOME=").is_empty());
    }

    #[test]
    fn a_zero_byte_is_an_error() {
        assert!(Words::new(&["a\0b".into()], &[]).is_err());
    }
}

//! Makes the child directly in its cgroup, and makes it execute the command.
//!
//! The standard library makes a child in the cgroup of this process, from which it would have to be moved. Moving a
//! process takes ten milliseconds or more, because the kernel waits for all concurrent forks and execs
//! (`cgroup_attach_lock` in kernel/cgroup/cgroup.c). Making it in its cgroup takes no extra time.

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
    path::PathBuf,
    ptr,
    sync::atomic::{AtomicU8, Ordering},
};

use nix::{
    errno::Errno,
    libc,
    unistd::{AccessFlags, access},
};

use super::process::Child;
use crate::{fence::cgroup::Entry, launch::environment::Environment};

/// `CLONE_INTO_CGROUP` of linux/sched.h (Linux 5.7). It does not fit into libc's type for flags.
const CLONE_INTO_CGROUP: u64 = 1 << 33;

/// The directories in which the C library searches if there is no PATH (`_CS_PATH`).
const DEFAULT_PATH: &str = "/bin:/usr/bin";

/// The arguments of exec. The executable is searched in the PATH of this process, which is also the PATH of the
/// command.
pub(super) struct Words {
    arguments: Vec<CString>,
    /// The paths at which the executable is searched.
    places: Vec<CString>,
    /// `None` for the environment of this process.
    environment: Option<Vec<CString>>,
    /// Further variables, whose value is the id of the new process.
    of_process: Vec<OfProcess>,
}

/// A variable whose value the new process writes: its id.
struct OfProcess {
    /// The name, an equals sign, and zeros. Atomic, so that it can be written while there are pointers to it.
    line: Vec<AtomicU8>,
    /// Where the value begins.
    value: usize,
}

impl OfProcess {
    fn new(name: &OsStr) -> Self {
        let begin = name.as_bytes().iter().copied().chain(*b"=");
        let zeros = [0; 1 + DIGITS];
        let line: Vec<_> = begin.chain(zeros).map(AtomicU8::new).collect();
        Self {
            value: line.len() - zeros.len(),
            line,
        }
    }

    /// Writes the value. Allocates nothing.
    fn set(&self, pid: u32) {
        let mut digits = [0; DIGITS];
        let mut rest = pid;
        let mut first = DIGITS;
        while first > 0 && (rest > 0 || first == DIGITS) {
            first -= 1;
            digits[first] = b'0' + u8::try_from(rest % 10).unwrap_or_default();
            rest /= 10;
        }
        for (to, digit) in self.line[self.value..].iter().zip(&digits[first..]) {
            to.store(*digit, Ordering::Relaxed);
        }
    }
}

/// The most digits of a process id.
const DIGITS: usize = 10;

impl Words {
    /// A command with its arguments, and its environment.
    ///
    /// # Errors
    /// If a word contains a zero byte.
    pub(super) fn new(command: &[OsString], environment: &Environment) -> io::Result<Self> {
        let text = |word: &OsStr| CString::new(word.as_bytes()).map_err(io::Error::other);
        let line = |(mut name, value): (OsString, OsString)| {
            name.push("=");
            name.push(value);
            text(&name)
        };
        let mut of_process = Vec::new();
        let environment = match environment.is_unchanged() {
            true => None,
            false => {
                let (named, others): (Vec<_>, Vec<_>) = environment
                    .apply(env::vars_os())
                    .into_iter()
                    .partition(|(name, _)| environment.names_command(name));
                of_process.extend(named.iter().map(|(name, _)| OfProcess::new(name)));
                Some(others.into_iter().map(line).collect::<Result<_, _>>()?)
            }
        };
        let places = command
            .first()
            .map_or_else(Vec::new, |program| places(program, env::var_os("PATH")));
        Ok(Self {
            of_process,
            arguments: command
                .iter()
                .map(|word| text(word))
                .collect::<Result<_, _>>()?,
            places: places
                .iter()
                .map(|place| text(place.as_os_str()))
                .collect::<Result<_, _>>()?,
            environment,
        })
    }
}

/// The paths at which execvp(3) searches an executable.
fn places(program: &OsStr, path: Option<OsString>) -> Vec<PathBuf> {
    if program.as_bytes().contains(&b'/') {
        return vec![program.into()];
    }
    let path = path.unwrap_or_else(|| DEFAULT_PATH.into());
    env::split_paths(&path)
        .map(|directory| directory.join(program))
        .collect()
}

/// Makes a child that runs `before_exec` and executes the command. If one of these fails, the child writes the error to
/// `failure` and ends. The argument of `before_exec` is the `cgroup.procs` that the child still has to enter, if any.
/// The parent drops `before_exec`, with its descriptors, before this returns.
///
/// The child has the signal mask of this thread until `before_exec` changes it.
///
/// # Errors
/// If the child cannot be made.
///
/// # Safety
/// `before_exec` must use system calls only. It must not allocate, take locks, or call functions that the C library
/// repeats in all threads (setuid and the like): the child has only one thread, but the library does not know that.
pub(super) unsafe fn spawn(
    words: &Words,
    entry: Option<Entry>,
    stdout: Option<OwnedFd>,
    failure: &OwnedFd,
    mut before_exec: impl FnMut(Option<&mut File>) -> io::Result<()>,
) -> io::Result<Child> {
    let arguments = pointers(&words.arguments);
    let environment = words.environment.as_deref().map(|lines| {
        let own = words.of_process.iter().map(|own| own.line.as_ptr().cast());
        let lines = lines.iter().map(|line| line.as_ptr());
        lines.chain(own).chain([ptr::null()]).collect::<Vec<_>>()
    });
    let (cgroup, mut procs) = match entry {
        Some(Entry { directory, procs }) => (Some(directory), Some(procs)),
        None => (None, None),
    };
    let born_there = cgroup.map(|cgroup| clone(CLONE_INTO_CGROUP, &cgroup));
    // clone3(2) is not permitted everywhere, and not into every cgroup. If it fails, moving the child reports the
    // reason.
    let (pid, procs) = match born_there {
        Some(Ok(pid)) => (pid, None),
        Some(Err(_)) | None => (fork()?, procs.as_mut()),
    };
    if pid != 0 {
        return Child::new(pid);
    }
    let run = || -> io::Result<Infallible> {
        // SAFETY: the default action of SIGPIPE installs no handler.
        unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
        if let Some(stdout) = &stdout {
            // SAFETY: the first descriptor is open, and the second one belongs to this process.
            Errno::result(unsafe { libc::dup2(stdout.as_raw_fd(), libc::STDOUT_FILENO) })?;
        }
        for own in &words.of_process {
            own.set(std::process::id());
        }
        before_exec(procs)?;
        exec(&arguments, environment.as_deref(), &words.places)
    };
    let error = match run() {
        Err(error) => error,
        Ok(never) => match never {},
    };
    let number = error.raw_os_error().unwrap_or(libc::EIO).to_ne_bytes();
    let [a, b, c, d] = number;
    let _ = nix::unistd::write(failure, &[FAILED, a, b, c, d]);
    // SAFETY: this ends the process without running any other code.
    unsafe { libc::_exit(1) }
}

/// The byte that precedes the number of an error.
pub(super) const FAILED: u8 = 0xff;

/// Splits the bytes that the child wrote into its progress and its error.
pub(super) fn failure(told: &[u8]) -> (&[u8], Option<io::Error>) {
    match told {
        [before @ .., FAILED, a, b, c, d] => {
            let number = i32::from_ne_bytes([*a, *b, *c, *d]);
            (before, Some(io::Error::from_raw_os_error(number)))
        }
        _ => (told, None),
    }
}

/// Makes a copy of this process with only this thread. Returns 0 in the copy.
fn clone(flags: u64, cgroup: &File) -> io::Result<libc::pid_t> {
    // SAFETY: a struct of integers, for which zero is a valid value.
    let mut arguments: libc::clone_args = unsafe { mem::zeroed() };
    arguments.flags = flags;
    arguments.exit_signal = u64::try_from(libc::SIGCHLD).unwrap_or_default();
    arguments.cgroup = u64::try_from(cgroup.as_raw_fd()).unwrap_or_default();
    // SAFETY: without flags to share memory this is a fork. The caller of `spawn` has promised what the child does.
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
    // SAFETY: the caller of `spawn` has promised what the child does.
    Ok(Errno::result(unsafe { libc::fork() })?)
}

/// Executes the command. Returns only if that fails.
///
/// execvp(3) fails with EACCES if it may not search one directory of PATH, although the executable may be in none of
/// them. That is ENOENT here, as in bash and zsh.
fn exec(
    arguments: &[*const c_char],
    environment: Option<&[*const c_char]>,
    places: &[CString],
) -> io::Result<Infallible> {
    let Some(program) = arguments.first() else {
        return Err(Errno::EINVAL.into());
    };
    match environment {
        // SAFETY: strings that end in zero, in lists that end in null. All of them are alive.
        Some(environment) => unsafe {
            libc::execvpe(*program, arguments.as_ptr(), environment.as_ptr())
        },
        // SAFETY: as above.
        None => unsafe { libc::execvp(*program, arguments.as_ptr()) },
    };
    let errno = Errno::last();
    let is_anywhere = || {
        places
            .iter()
            .any(|place| access(place.as_c_str(), AccessFlags::F_OK).is_ok())
    };
    if errno == Errno::EACCES && !is_anywhere() {
        return Err(Errno::ENOENT.into());
    }
    Err(errno.into())
}

/// The list of strings for exec.
fn pointers(words: &[CString]) -> Vec<*const c_char> {
    words
        .iter()
        .map(|word| word.as_ptr())
        .chain([ptr::null()])
        .collect()
}

/// Moves this process into a cgroup, by its `cgroup.procs`.
///
/// # Errors
/// The error of the write.
pub(super) fn enter(procs: &mut File) -> io::Result<()> {
    // "0" is the writing process.
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
    fn an_executable_is_searched_where_the_c_library_searches() {
        let found = |program: &str, path: Option<&str>| {
            let places = places(OsStr::new(program), path.map(OsString::from));
            let places: Vec<_> = places
                .iter()
                .map(|place| place.display().to_string())
                .collect();
            places.join(" ")
        };
        assert_eq!(found("ls", Some("/a:/b/")), "/a/ls /b/ls");
        // An empty name is the working directory.
        assert_eq!(found("ls", Some("/a::")), "/a/ls ls ls");
        assert_eq!(found("ls", None), "/bin/ls /usr/bin/ls");
        assert_eq!(found("./ls", Some("/a")), "./ls");
    }

    #[test]
    fn a_variable_gets_the_id_of_the_process() {
        for pid in [0, 7, 40_000, u32::MAX] {
            let own = OfProcess::new(OsStr::new("LISTEN_PID"));
            own.set(pid);
            let bytes = own.line.into_iter().map(AtomicU8::into_inner).collect();
            let text = String::from_utf8(bytes).unwrap();
            assert_eq!(text.trim_end_matches('\0'), format!("LISTEN_PID={pid}"));
            assert!(text.ends_with('\0'));
        }
    }

    #[test]
    fn a_zero_byte_is_an_error() {
        assert!(Words::new(&["a\0b".into()], &Environment::default()).is_err());
    }
}

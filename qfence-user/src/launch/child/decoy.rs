//! A process of the command's user outside its Landlock domain, by which the child proves that the domain closes such
//! processes.

use std::os::fd::{AsRawFd as _, OwnedFd};

use nix::{
    errno::Errno,
    fcntl::OFlag,
    libc,
    unistd::{pipe2, read},
};

use super::seccomp::fork;

/// The process. It ends when its pipe closes.
pub(super) struct Decoy {
    pid: libc::pid_t,
    pipe: OwnedFd,
}

impl Decoy {
    /// Starts the process, and makes sure that it can be signalled. Uses system calls only.
    ///
    /// # Errors
    /// The errors of the system calls.
    pub(super) fn start() -> nix::Result<Self> {
        let (wait, pipe) = pipe2(OFlag::O_CLOEXEC)?;
        let pid = fork()?;
        if pid == 0 {
            // SAFETY: the descriptor belongs to this process; its owner is not dropped here.
            unsafe { libc::close(pipe.as_raw_fd()) };
            let _ = read(&wait, &mut [0]);
            // SAFETY: this ends the process without running any other code.
            unsafe { libc::_exit(0) }
        }
        let decoy = Self { pid, pipe };
        match decoy.can_be_signalled()? {
            true => Ok(decoy),
            false => Err(Errno::EPERM),
        }
    }

    /// Whether this process may signal it.
    ///
    /// # Errors
    /// Errors other than a lack of permission.
    pub(super) fn can_be_signalled(&self) -> nix::Result<bool> {
        // SAFETY: signal 0 is only a check.
        match Errno::result(unsafe { libc::kill(self.pid, 0) }) {
            Ok(_) => Ok(true),
            Err(Errno::EPERM) => Ok(false),
            Err(errno) => Err(errno),
        }
    }

    /// Ends the process, and waits for its end.
    ///
    /// # Errors
    /// The errors of waitpid(2).
    pub(super) fn end(self) -> nix::Result<()> {
        let pid = self.pid;
        drop(self.pipe);
        loop {
            // SAFETY: without a place for the status, the kernel writes none.
            let waited = unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) };
            match Errno::result(waited) {
                Err(Errno::EINTR) => {}
                other => return other.map(drop),
            }
        }
    }
}

//! Signals that the caller of qfence ignores. The command must also ignore them (nohup, service managers). qfence
//! itself cannot ignore two of them while it runs.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};
use nix::sys::signal::{SigHandler, Signal, signal};

/// Whether SIGPIPE was ignored before Rust's runtime ignored it.
static PIPE_WAS_IGNORED: AtomicBool = AtomicBool::new(false);

/// Runs before the Rust runtime. Like the runtime, it ignores SIGPIPE.
extern "C" fn look_at_pipe() {
    // SAFETY: ignoring a signal installs no handler.
    let before = unsafe { signal(Signal::SIGPIPE, SigHandler::SigIgn) };
    PIPE_WAS_IGNORED.store(matches!(before, Ok(SigHandler::SigIgn)), Ordering::Relaxed);
}

// SAFETY: the section is a list of functions of this type, which the loader calls before `main`. This function makes a
// system call and stores a byte, and needs no initialized runtime.
#[used]
#[unsafe(link_section = ".init_array")]
static BEFORE_MAIN: extern "C" fn() = look_at_pipe;

/// Which of the two signals the command must ignore again.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reignored {
    pipe: bool,
    child: bool,
}

impl Reignored {
    /// Stops ignoring SIGCHLD, if it is ignored: for a process that ignores it, the kernel reaps the children and
    /// discards their exit status. `ignored` has a bit for each ignored signal.
    ///
    /// # Errors
    /// If the disposition cannot be changed.
    pub fn take_back(ignored: u64) -> Result<Self> {
        let child = ignored & (1 << (Signal::SIGCHLD as i32 - 1)) != 0;
        if child {
            // SAFETY: the default action of SIGCHLD installs no handler and does not end the process.
            unsafe { signal(Signal::SIGCHLD, SigHandler::SigDfl) }
                .context("cannot stop ignoring SIGCHLD")?;
        }
        Ok(Self {
            pipe: PIPE_WAS_IGNORED.load(Ordering::Relaxed),
            child,
        })
    }

    /// Ignores these signals again. Called between fork and exec, so it uses system calls only.
    ///
    /// # Errors
    /// The errors of these system calls.
    pub fn ignore(self) -> nix::Result<()> {
        for (wanted, which) in [(self.pipe, Signal::SIGPIPE), (self.child, Signal::SIGCHLD)] {
            if wanted {
                // SAFETY: ignoring a signal installs no handler.
                unsafe { signal(which, SigHandler::SigIgn) }?;
            }
        }
        Ok(())
    }
}

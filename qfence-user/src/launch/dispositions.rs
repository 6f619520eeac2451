//! Signals that qfence's caller ignores. What a caller ignores, its command finds ignored (nohup, a
//! service manager); two of them qfence itself cannot leave so while it runs.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};
use nix::sys::signal::{SigHandler, Signal, signal};

/// Whether SIGPIPE was ignored before Rust's runtime did so.
static PIPE_WAS_IGNORED: AtomicBool = AtomicBool::new(false);

/// Runs before the runtime, which ignores SIGPIPE for every Rust program, as this does.
extern "C" fn look_at_pipe() {
    // SAFETY: ignoring a signal installs no handler that could run at a bad time.
    let before = unsafe { signal(Signal::SIGPIPE, SigHandler::SigIgn) };
    PIPE_WAS_IGNORED.store(matches!(before, Ok(SigHandler::SigIgn)), Ordering::Relaxed);
}

// SAFETY: the section is a list of functions of this type, which the loader calls before `main`; this
// one makes a system call and stores a byte, and needs nothing that is not there yet.
#[used]
#[unsafe(link_section = ".init_array")]
static BEFORE_MAIN: extern "C" fn() = look_at_pipe;

/// Of the two signals, those to be ignored again in the command.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reignored {
    pipe: bool,
    child: bool,
}

impl Reignored {
    /// Takes SIGCHLD back from being ignored, if it is: the kernel reaps the children of whoever
    /// ignores it, and keeps no status for waiting. `ignored` has a bit for each signal that is.
    ///
    /// # Errors
    /// If the kernel does not let it.
    pub fn take_back(ignored: u64) -> Result<Self> {
        let child = ignored & (1 << (Signal::SIGCHLD as i32 - 1)) != 0;
        if child {
            // SAFETY: the default for SIGCHLD is no handler and no end.
            unsafe { signal(Signal::SIGCHLD, SigHandler::SigDfl) }
                .context("cannot take SIGCHLD back from being ignored")?;
        }
        Ok(Self {
            pipe: PIPE_WAS_IGNORED.load(Ordering::Relaxed),
            child,
        })
    }

    /// Ignores them; between fork and exec, so with system calls alone.
    ///
    /// # Errors
    /// What the system calls fail with.
    pub fn ignore(self) -> nix::Result<()> {
        for (wanted, which) in [(self.pipe, Signal::SIGPIPE), (self.child, Signal::SIGCHLD)] {
            if wanted {
                // SAFETY: as above, no handler is installed.
                unsafe { signal(which, SigHandler::SigIgn) }?;
            }
        }
        Ok(())
    }
}

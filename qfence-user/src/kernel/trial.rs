//! Tries the programs one by one, to find out which of them a kernel loads.

use std::{fs::File, io, os::fd::AsFd as _};

use anyhow::{Context as _, anyhow};
use aya::{
    BtfError, Ebpf,
    programs::{Program, ProgramError, ProgramFd},
};
use nix::libc;
use qfence_common::{Hook, frame::checksum, netns, proof::Token, resolved::Resolver, unix};

use super::{
    DenyWith, LogAllowed, NetworkDevices, Settings,
    link::{Link, attach, load},
    load::{Variant, object, open, try_frames},
    no_program, own_link,
    own_program::{OwnProgram, Source, is_own},
    program,
};
use crate::confinement::Enforced;

/// A resolver that does not exist.
const RESOLVER: Resolver = Resolver {
    netns: u64::MAX,
    v4: u32::from_be_bytes([127, 0, 0, 1]),
    port: 1,
    has_v6: 1,
};

/// Why a trial failed.
#[derive(Debug, thiserror::Error)]
pub enum TrialError {
    /// The kernel did not load a program.
    #[error(transparent)]
    Load(#[from] ProgramError),
    /// The kernel did not attach a program.
    #[error(transparent)]
    Attach(anyhow::Error),
    /// Something else failed.
    #[error(transparent)]
    Other(#[from] anyhow::Error),
}

/// The programs of a fence that never gets a policy. Dropping it unloads and detaches them.
pub struct Trial {
    ebpf: Ebpf,
    /// The object, and the programs of it that aya does not load.
    source: Source<'static>,
    own: Vec<OwnProgram>,
    links: Vec<Link>,
}

impl Trial {
    /// Makes the maps.
    ///
    /// `sets_errno` is whether the programs set the error of a refused call, which needs `bpf_set_retval`.
    ///
    /// # Errors
    /// If the kernel rejects the maps.
    pub fn new(sets_errno: bool) -> Result<Self, TrialError> {
        Self::with(sets_errno, checksum::Offsets::default())
    }

    /// Makes the maps for the programs at network devices.
    ///
    /// # Errors
    /// If the kernel rejects the maps, or does not let programs read packets.
    pub(super) fn of_frames() -> Result<Self, TrialError> {
        Self::with(false, try_frames()?)
    }

    fn with(sets_errno: bool, frame: checksum::Offsets) -> Result<Self, TrialError> {
        let deny_retval = if sets_errno {
            -(DenyWith::Refused.errno() as i32)
        } else {
            0
        };
        let variant = Variant {
            deny_retval,
            names_caller: sets_errno,
            finds_mptcp: false,
            netns: netns::Offsets::default(),
            unix: unix::Offsets::default(),
            frame,
            listing: None,
        };
        let settings = Settings {
            deny: DenyWith::Refused,
            allow_raw: false,
            allow_devices: NetworkDevices::None,
            allow_netns: false,
            node_netns: 0,
            log_allowed: LogAllowed::No,
            cgroup: 0,
            trace: false,
            rules: 0,
            // As in a fence with devices: the programs are to be what they are there.
            devices: frame.are_known != 0,
            lists: false,
        };
        // With it, the kernel verifies what the programs do for names, too.
        let enforced = Enforced {
            resolver: Some(RESOLVER),
            ..Enforced::default()
        };
        let ebpf = open(
            object(settings),
            variant,
            settings,
            &enforced,
            Token(0),
            None,
        )?;
        Ok(Self {
            source: Source::of(object(settings), &ebpf),
            ebpf,
            own: Vec::new(),
            links: Vec::new(),
        })
    }

    /// Loads the program of a hook.
    ///
    /// # Errors
    /// If the kernel rejects it; see [`TrialError::in_brief`].
    pub fn load(&mut self, hook: Hook) -> Result<(), TrialError> {
        if is_own(hook) {
            self.own.extend(self.source.load(&[hook])?);
            return Ok(());
        }
        Ok(load(program(&mut self.ebpf, hook)?, hook, None)?)
    }

    /// The loaded program of a hook at network devices.
    ///
    /// # Errors
    /// If it was not loaded.
    pub(super) fn frame_program(&mut self, hook: Hook) -> Result<&ProgramFd, TrialError> {
        match program(&mut self.ebpf, hook)? {
            Program::SchedClassifier(program) => Ok(program.fd()?),
            _ => Err(no_program(hook).into()),
        }
    }

    /// Attaches the loaded program of a hook to a cgroup.
    ///
    /// # Errors
    /// If the kernel does not allow it.
    pub fn attach(&mut self, hook: Hook, cgroup: &File) -> Result<(), TrialError> {
        let context = || format!("cannot attach the eBPF program for {}", hook.name());
        let link = if is_own(hook) {
            let own = self.own.iter().find(|own| own.hook == hook);
            let fd = &own.ok_or_else(|| no_program(hook))?.fd;
            Link::Own(own_link::attach(fd.as_fd(), cgroup, hook).with_context(context)?)
        } else {
            attach(program(&mut self.ebpf, hook)?, hook, cgroup).with_context(context)?
        };
        self.links.push(link);
        Ok(())
    }
}

impl TrialError {
    /// The error in one line. Of the verifier's log, which can have pages, only the reason.
    #[must_use]
    pub fn in_brief(&self) -> String {
        match self {
            Self::Load(ProgramError::LoadError {
                io_error,
                verifier_log,
            }) => match verdict(&verifier_log.to_string()) {
                Some(verdict) => format!("{io_error}: {verdict}"),
                None => io_error.to_string(),
            },
            Self::Load(error) => in_one_line(&anyhow!("{error}")),
            Self::Attach(error) | Self::Other(error) => in_one_line(error),
        }
    }

    /// Whether this is an answer of the kernel about itself, which it gives again until the next boot: it does not know such
    /// programs, or its verifier rejects them. Every other error can pass: there was no memory or no descriptor, this process
    /// lacks a privilege, or programs of others take the room.
    pub(super) fn is_answer(&self) -> bool {
        match self {
            Self::Load(ProgramError::LoadError {
                io_error,
                verifier_log,
            }) => {
                is_unsupported(io_error)
                    // Without a log, a security module has refused this process, or the kernel knows less of `bpf_attr`.
                    || matches!(io_error.raw_os_error(), Some(libc::EACCES | libc::E2BIG))
                        && verdict(&verifier_log.to_string()).is_some()
            }
            Self::Load(ProgramError::Btf(BtfError::UnknownBtfTypeName { .. })) => true,
            Self::Attach(error) => error
                .downcast_ref::<io::Error>()
                .is_some_and(is_unsupported),
            Self::Load(_) | Self::Other(_) => false,
        }
    }
}

/// Whether a call of bpf(2) failed because the kernel does not know what was asked for.
fn is_unsupported(error: &io::Error) -> bool {
    /// An error of the kernel's own, which trampolines fail with where an architecture has none (include/linux/errno.h).
    const ENOTSUPP: i32 = 524;
    matches!(
        error.raw_os_error(),
        Some(libc::EINVAL | libc::EOPNOTSUPP | ENOTSUPP)
    )
}

fn in_one_line(error: &anyhow::Error) -> String {
    format!("{error:#}").replace('\n', " ")
}

/// The line of the verifier's log that has the reason: the last before its statistics.
pub(super) fn verdict(log: &str) -> Option<&str> {
    const STATISTICS: [&str; 3] = ["verification time", "stack depth", "processed"];
    log.lines().map(str::trim).rfind(|line| {
        !line.is_empty()
            && !STATISTICS
                .iter()
                .any(|statistic| line.starts_with(statistic))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verifiers_last_word_is_told() {
        let log = "0: R1=ctx()\n1: (85) call 187\nunknown func bpf_set_retval#187\n\
                   verification time 9 usec\nstack depth 24+0\nprocessed 20 insns\n";
        assert_eq!(verdict(log), Some("unknown func bpf_set_retval#187"));
        assert_eq!(verdict("\n"), None);
    }

    #[test]
    fn only_the_kernels_answers_are_answers() {
        let loaded = |errno, log: &str| {
            TrialError::Load(ProgramError::LoadError {
                io_error: io::Error::from_raw_os_error(errno),
                verifier_log: aya_obj::VerifierLog::new(log.into()),
            })
        };
        let attached = |errno| {
            let error = anyhow::Error::new(io::Error::from_raw_os_error(errno));
            TrialError::Attach(error.context("cannot attach the program"))
        };
        for errno in [libc::EINVAL, libc::EOPNOTSUPP, 524] {
            assert!(loaded(errno, "").is_answer(), "{errno}");
            assert!(attached(errno).is_answer(), "{errno}");
        }
        for errno in [
            libc::ENOMEM,
            libc::EINTR,
            libc::EAGAIN,
            libc::EMFILE,
            libc::ENFILE,
            libc::EPERM,
            libc::ENOSPC,
            libc::ENODEV,
            libc::EBUSY,
        ] {
            assert!(!loaded(errno, "0: R1=ctx()\n").is_answer(), "{errno}");
            assert!(!attached(errno).is_answer(), "{errno}");
        }
        // The verifier's; and a security module's, or too many programs of others.
        for errno in [libc::EACCES, libc::E2BIG] {
            assert!(loaded(errno, "R1 is no pointer\nprocessed 20 insns\n").is_answer());
            assert!(!loaded(errno, "").is_answer(), "{errno}");
            assert!(!attached(errno).is_answer(), "{errno}");
        }
    }

    #[test]
    fn types_that_the_kernel_lacks_are_an_answer() {
        let lacks = BtfError::UnknownBtfTypeName {
            type_name: "bpf_lsm_unix_may_send".into(),
        };
        assert!(TrialError::Load(lacks.into()).is_answer());
        assert!(!TrialError::Load(ProgramError::NotLoaded).is_answer());
        let invalid = io::Error::from_raw_os_error(libc::EINVAL);
        assert!(!TrialError::Other(invalid.into()).is_answer());
    }

    #[test]
    fn other_errors_are_told_as_they_are() {
        let error = anyhow::anyhow!("one\ntwo").context("three");
        assert_eq!(TrialError::Other(error).in_brief(), "three: one two");
    }
}

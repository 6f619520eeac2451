//! Tries the programs one by one, to find out which of them a kernel loads.

use std::{fs::File, os::fd::AsFd as _};

use anyhow::{Context as _, anyhow};
use aya::{
    Ebpf,
    programs::{Program, ProgramError, ProgramFd},
};
use qfence_common::{Hook, frame::checksum, netns, proof::Token, resolved::Resolver, unix};

use super::{
    DenyWith, NetworkDevices, Settings,
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
    /// Something else failed.
    #[error(transparent)]
    Other(#[from] anyhow::Error),
}

/// The programs of a fence that never gets a policy. Dropping it unloads and detaches them.
pub struct Trial {
    ebpf: Ebpf,
    /// The object, and the programs of it that aya does not load.
    source: Source,
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
            log_allowed: false,
            cgroup: 0,
            trace: false,
            rules: 0,
            devices: false,
            lists: false,
        };
        // With it, the kernel verifies what the programs do for names, too.
        let enforced = Enforced {
            resolver: Some(RESOLVER),
            ..Enforced::default()
        };
        let ebpf = open(variant, settings, &enforced, Token(0), None)?;
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
            Self::Other(error) => in_one_line(error),
        }
    }
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
    fn other_errors_are_told_as_they_are() {
        let error = anyhow::anyhow!("one\ntwo").context("three");
        assert_eq!(TrialError::Other(error).in_brief(), "three: one two");
    }
}

//! Tries the programs one by one, to tell which of them a kernel takes.

use std::fs::File;

use anyhow::{Context, Result};
use aya::{Ebpf, programs::ProgramError};
use qfence_common::{Hook, netns::Offsets, proof::Token};

use super::{
    DenyWith, Settings,
    link::{Link, attach, load},
    load::{Variant, open},
    program,
};

/// The programs of a fence that never gets a policy. What is loaded or attached goes with it.
pub struct Trial {
    ebpf: Ebpf,
    links: Vec<Link>,
}

impl Trial {
    /// Makes the maps.
    ///
    /// `sets_errno` is whether the programs are to set the error of a refused call, for which they
    /// need `bpf_set_retval`.
    ///
    /// # Errors
    /// If the kernel does not take the maps.
    pub fn new(sets_errno: bool) -> Result<Self> {
        let deny_retval = if sets_errno {
            -(DenyWith::Refused.errno() as i32)
        } else {
            0
        };
        let variant = Variant {
            deny_retval,
            names_caller: sets_errno,
            finds_mptcp: false,
            netns: Offsets::default(),
        };
        let settings = Settings {
            deny: DenyWith::Refused,
            allow_raw: false,
            allow_devices: false,
            allow_netns: false,
            cgroup: 0,
            trace: false,
            rules: 0,
        };
        Ok(Self {
            ebpf: open(variant, settings, Token(0))?,
            links: Vec::new(),
        })
    }

    /// Loads the program of a hook.
    ///
    /// # Errors
    /// If the kernel does not take it; see [`in_brief`].
    pub fn load(&mut self, hook: Hook) -> Result<()> {
        Ok(load(program(&mut self.ebpf, hook)?)?)
    }

    /// Attaches the program of a hook, which is loaded, to a cgroup.
    ///
    /// # Errors
    /// If the kernel does not allow it.
    pub fn attach(&mut self, hook: Hook, cgroup: &File) -> Result<()> {
        let link = attach(program(&mut self.ebpf, hook)?, hook, cgroup)
            .with_context(|| format!("cannot attach the eBPF program for {}", hook.name()))?;
        self.links.push(link);
        Ok(())
    }
}

/// An error in a line: of the verifier's account, which can be of pages, what it ended with.
#[must_use]
pub fn in_brief(error: &anyhow::Error) -> String {
    let refusal = error.chain().find_map(|cause| match cause.downcast_ref() {
        Some(ProgramError::LoadError {
            io_error,
            verifier_log,
        }) => Some((io_error, verifier_log.to_string())),
        _ => None,
    });
    match refusal {
        Some((io_error, log)) => match verdict(&log) {
            Some(verdict) => format!("{io_error}: {verdict}"),
            None => io_error.to_string(),
        },
        None => format!("{error:#}").replace('\n', " "),
    }
}

/// The line in which the verifier says why not: the last before its statistics.
fn verdict(log: &str) -> Option<&str> {
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
        assert_eq!(in_brief(&error), "three: one two");
    }
}

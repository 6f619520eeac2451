//! The ways out of a fence that are no internet sockets, and whether this kernel lets qfence close them.

use std::path::Path;

use anyhow::{Context as _, Result};

use super::{finding::Finding, throwaway::ThrowAway};
use crate::{
    build::lsm::try_lsm,
    fence::hierarchy::Hierarchy,
    kernel::lsm_trial,
    launch::{
        child::{Closures, Lifted, Wanted},
        managers,
    },
};

const PROCESSES: &str = "other processes";
const MANAGERS: &str = "managers";

const FIX_MANAGERS: &str = "use Linux 6.12 with landlock in lsm=, or 6.0 (on aarch64 6.4) with bpf in lsm=; before, run commands as a user \
     without a session and without containers";

const FIX: &str = "use Linux 6.12 with landlock in lsm=; before, run commands as a user without a session and without containers";

/// Tries each closure. `run` is qfence's directory of files.
#[must_use]
pub fn examine(hierarchy: Option<&Hierarchy>, run: &Path) -> [Finding; 2] {
    let domain = Closures::new(Wanted::default()).map(|closures| closures.close_processes());
    [
        judge_processes(&domain),
        judge_managers(&domain, managers::try_masks(), || lsm(hierarchy, run)),
    ]
}

/// Whether the programs of the security module BPF run on this kernel; the error is the reason if they do not, or if that
/// cannot be found out now. An answer of the kernel that is cached for this boot is taken.
///
/// # Errors
/// The reason.
pub fn security_module(hierarchy: &Hierarchy, run: &Path) -> Result<(), String> {
    match lsm_trial::earlier(run) {
        Some(outcome) => outcome.usable(),
        None => lsm(Some(hierarchy), run),
    }
}

/// As above, tried anew.
fn lsm(hierarchy: Option<&Hierarchy>, run: &Path) -> Result<(), String> {
    let tried = || {
        let cgroup = ThrowAway::new(hierarchy.context("there is no cgroup2 hierarchy")?)?;
        try_lsm(cgroup.place.cgroup(), run, Lifted::lift()?)
    };
    match tried() {
        Ok(outcome) => outcome.usable(),
        Err(error) => Err(format!("{error:#}")),
    }
}

fn judge_processes(domain: &Result<bool>) -> Finding {
    match domain {
        Ok(true) => Finding::ok(
            PROCESSES,
            "a command cannot trace or signal processes outside its fence",
        ),
        Ok(false) => Finding::degraded(
            PROCESSES,
            "a command can trace and signal the other processes of its user: no Landlock domains for signals",
            FIX,
        ),
        Err(error) => Finding::degraded(PROCESSES, format!("unknown: {error:#}"), FIX),
    }
}

/// `lsm` tries the programs for Unix sockets, which are used where there is no domain.
fn judge_managers(
    domain: &Result<bool>,
    masks: Result<(), String>,
    lsm: impl FnOnce() -> Result<(), String>,
) -> Finding {
    let lsm = match domain {
        Ok(true) => Err(String::new()),
        _ => lsm(),
    };
    match (domain, masks) {
        _ if lsm.is_ok() => Finding::ok(
            MANAGERS,
            "a command of a user cannot use systemd, buses and container engines: programs of the security module BPF \
             refuse their sockets",
        ),
        (_, Err(error)) => Finding::degraded(
            MANAGERS,
            format!("a command can use its user's systemd and containers: {error}"),
            "give qfence CAP_SYS_ADMIN, and a root directory that is a mount point",
        ),
        (Ok(true), Ok(())) => Finding::ok(
            MANAGERS,
            "a command of a user cannot use systemd, buses and container engines: their sockets are masked, and a Landlock \
             domain closes the ways around the masks",
        ),
        (_, Ok(())) => Finding::degraded(
            MANAGERS,
            format!(
                "a command can use its user's systemd and containers by /proc/PID/root of another process: no Landlock \
                 domains for signals, and no programs for Unix sockets: {}",
                lsm.err().unwrap_or_default()
            ),
            FIX_MANAGERS,
        ),
    }
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::{super::finding::State, *};

    #[test]
    fn managers_take_both_masks_and_domain() {
        let lsm = || Err("no such type".to_owned());
        let state = |domain, masks| judge_managers(&domain, masks, lsm).state;
        assert_eq!(state(Ok(true), Ok(())), State::Ok);
        assert_eq!(state(Ok(false), Ok(())), State::Degraded);
        assert_eq!(state(Err(anyhow!("x")), Ok(())), State::Degraded);
        assert_eq!(state(Ok(true), Err("x".into())), State::Degraded);
    }

    #[test]
    fn managers_take_only_programs_for_their_sockets() {
        for masks in [Ok(()), Err("x".to_owned())] {
            let found = judge_managers(&Ok(false), masks, || Ok(()));
            assert_eq!(found.state, State::Ok);
            assert!(found.found.contains("security module BPF"), "{found:?}");
        }
        let without = judge_managers(&Ok(false), Ok(()), || Err("no such type".into()));
        assert!(without.found.ends_with(": no such type"), "{without:?}");
    }

    #[test]
    fn processes_take_the_domain() {
        assert_eq!(judge_processes(&Ok(true)).state, State::Ok);
        assert_eq!(judge_processes(&Ok(false)).state, State::Degraded);
        assert_eq!(judge_processes(&Err(anyhow!("x"))).state, State::Degraded);
    }
}

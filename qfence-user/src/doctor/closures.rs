//! The ways out of a fence that are no internet sockets, and whether this kernel lets qfence close them.

use anyhow::Result;

use super::finding::Finding;
use crate::launch::{
    child::{Closures, Wanted},
    managers,
};

const PROCESSES: &str = "other processes";
const MANAGERS: &str = "managers";

const FIX: &str = "use Linux 6.12 with landlock in lsm=; before, run commands as a user without a session and without containers";

/// Tries each closure.
#[must_use]
pub fn examine() -> [Finding; 2] {
    let domain = Closures::new(Wanted::default()).map(|closures| closures.close_processes());
    [
        judge_processes(&domain),
        judge_managers(&domain, managers::try_masks()),
    ]
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

fn judge_managers(domain: &Result<bool>, masks: Result<(), String>) -> Finding {
    match (domain, masks) {
        (_, Err(error)) => Finding::degraded(
            MANAGERS,
            format!("a command can use its user's systemd and containers: {error}"),
            "give qfence CAP_SYS_ADMIN, and a root directory that is a mount point",
        ),
        (Ok(true), Ok(())) => Finding::ok(
            MANAGERS,
            "a command of a user cannot use systemd, buses and container engines",
        ),
        (_, Ok(())) => Finding::degraded(
            MANAGERS,
            "a command can use its user's systemd and containers by /proc/PID/root of another process: no Landlock \
             domains for signals",
            FIX,
        ),
    }
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::{super::finding::State, *};

    #[test]
    fn managers_take_both_masks_and_domain() {
        let state = |domain, masks| judge_managers(&domain, masks).state;
        assert_eq!(state(Ok(true), Ok(())), State::Ok);
        assert_eq!(state(Ok(false), Ok(())), State::Degraded);
        assert_eq!(state(Err(anyhow!("x")), Ok(())), State::Degraded);
        assert_eq!(state(Ok(true), Err("x".into())), State::Degraded);
    }

    #[test]
    fn processes_take_the_domain() {
        assert_eq!(judge_processes(&Ok(true)).state, State::Ok);
        assert_eq!(judge_processes(&Ok(false)).state, State::Degraded);
        assert_eq!(judge_processes(&Err(anyhow!("x"))).state, State::Degraded);
    }
}

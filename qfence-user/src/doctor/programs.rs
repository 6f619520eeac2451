//! The eBPF programs: each is loaded into this kernel, and attached to a temporary cgroup.
//!
//! The kernel's feature probes are not reliable. Only a trial shows whether the kernel accepts a program.

use std::fs::File;

use anyhow::Result;
use qfence_common::{Hook, hook::Subject};

use super::{finding::Finding, throwaway::ThrowAway};
use crate::{
    fence::hierarchy::Hierarchy,
    kernel::trial::{Trial, TrialError},
};

const ERRNO: &str = "bpf_set_retval";

/// The result of a step; the error is one line.
type Step = Result<(), String>;

/// The result of a program's trial.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Tried {
    hook: Hook,
    /// Loading the program as a variant that sets the error of refused calls.
    with_errno: Step,
    /// Loading it without that, if the first variant failed.
    without: Option<Step>,
    /// Attaching it, if it was loaded and there is a cgroup.
    attached: Option<Step>,
}

impl Tried {
    fn loaded(&self) -> &Step {
        self.without.as_ref().unwrap_or(&self.with_errno)
    }
}

/// Loads and attaches each program. On return, the links, the programs and the cgroup are removed.
#[must_use]
pub fn examine(hierarchy: Option<&Hierarchy>) -> Vec<Finding> {
    let throw_away = hierarchy.map(ThrowAway::new);
    let cgroup = match &throw_away {
        None => Err("there is no cgroup2 hierarchy".to_owned()),
        Some(Err(error)) => Err(format!("{error:#}")),
        Some(Ok(throw_away)) => throw_away
            .place
            .cgroup()
            .open()
            .map_err(|error| format!("{error:#}")),
    };
    let all: Vec<Tried> = Hook::ALL
        .into_iter()
        .map(|hook| attempt(hook, cgroup.as_ref().ok()))
        .collect();
    let mut findings: Vec<Finding> = all
        .iter()
        .map(|tried| judge(tried, cgroup.as_ref().err()))
        .collect();
    findings.push(judge_errno(&all));
    findings
}

/// The findings for a process that cannot try the programs.
#[must_use]
pub fn not_root() -> Vec<Finding> {
    let mut findings: Vec<Finding> = Hook::ALL
        .into_iter()
        .map(name)
        .map(Finding::not_root)
        .collect();
    findings.push(Finding::not_root(ERRNO));
    findings
}

fn name(hook: Hook) -> String {
    format!("program {}", hook.name())
}

/// Each program has its own trial, so that they do not depend on each other.
fn attempt(hook: Hook, cgroup: Option<&File>) -> Tried {
    let load = |sets_errno| -> Result<Trial, TrialError> {
        let mut trial = Trial::new(sets_errno)?;
        trial.load(hook)?;
        Ok(trial)
    };
    let brief = |error: TrialError| error.in_brief();
    let with_errno = load(true).map_err(brief);
    let without = with_errno.is_err().then(|| load(false).map_err(brief));
    let done = |step: &Result<Trial, String>| step.as_ref().map(drop).map_err(Clone::clone);
    let mut tried = Tried {
        hook,
        with_errno: done(&with_errno),
        without: without.as_ref().map(done),
        attached: None,
    };
    if let (Ok(mut trial), Some(cgroup)) = (without.unwrap_or(with_errno), cgroup) {
        tried.attached = Some(trial.attach(hook, cgroup).map_err(brief));
    }
    tried
}

fn judge(tried: &Tried, no_cgroup: Option<&String>) -> Finding {
    let name = name(tried.hook);
    match (tried.loaded(), &tried.attached) {
        (Err(error), _) if tried.hook.row().subject == Subject::Name => Finding::degraded(
            name,
            format!(
                "the kernel refuses to load it: {error}; managers are masked all the same, but attempts to use them are \
                 not on record, and --strict=sockets is not possible"
            ),
            "use Linux 6.7 or newer",
        ),
        (Err(error), _) => Finding::missing(
            name,
            format!("the kernel refuses to load it: {error}"),
            "Linux 5.10 with CONFIG_CGROUP_BPF and CONFIG_DEBUG_INFO_BTF is needed; if the kernel is \
             that, see the lines on capabilities, security modules and memlock, and in a container \
             its seccomp profile",
        ),
        (Ok(()), Some(Err(error))) => Finding::missing(
            name,
            format!("loaded; {error}"),
            "see capabilities and foreign programs; links need Linux 5.7",
        ),
        (Ok(()), Some(Ok(()))) => Finding::ok(name, "loaded, and attached to a cgroup"),
        (Ok(()), None) => Finding::degraded(
            name,
            format!(
                "loaded; attaching was not tried: {}",
                no_cgroup.map_or("no cgroup", String::as_str)
            ),
            "see the checks of cgroups",
        ),
    }
}

fn judge_errno(all: &[Tried]) -> Finding {
    let required = all.iter().filter(|tried| !tried.hook.row().is_optional);
    let refused = required.into_iter().find_map(|tried| {
        let loaded = tried.loaded().is_ok();
        tried.with_errno.as_ref().err().map(|error| (loaded, error))
    });
    match refused {
        None => Finding::ok(ERRNO, "refused calls fail with the error of --deny-with"),
        Some((true, error)) => Finding::degraded(
            ERRNO,
            format!("refused calls fail with EPERM, regardless of --deny-with: {error}"),
            "use Linux 5.18 or newer if the error matters",
        ),
        Some((false, error)) => Finding::missing(
            ERRNO,
            format!("not checked, because a program cannot be loaded: {error}"),
            "see the checks of programs",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::finding::State, *};

    const OK: Step = Ok(());

    fn no() -> Step {
        Err("Invalid argument: unknown func bpf_set_retval#187".into())
    }

    fn tried(with_errno: Step, without: Option<Step>, attached: Option<Step>) -> Tried {
        Tried {
            hook: Hook::Connect4,
            with_errno,
            without,
            attached,
        }
    }

    #[test]
    fn what_loads_and_attaches_is_well() {
        let good = tried(OK, None, Some(OK));
        assert_eq!(judge(&good, None).state, State::Ok);
        assert_eq!(judge_errno(&[good]).state, State::Ok);
    }

    #[test]
    fn without_the_errno_it_holds_all_the_same() {
        let old = tried(no(), Some(OK), Some(OK));
        assert_eq!(judge(&old, None).state, State::Ok);
        let finding = judge_errno(&[tried(OK, None, Some(OK)), old]);
        assert_eq!(finding.state, State::Degraded);
        assert!(finding.found.contains("EPERM"));
        assert!(finding.found.ends_with("bpf_set_retval#187"), "{finding:?}");
    }

    #[test]
    fn what_is_not_taken_or_not_attached_is_missing() {
        let refused = tried(no(), Some(no()), None);
        assert_eq!(judge(&refused, None).state, State::Missing);
        assert_eq!(judge_errno(&[refused]).state, State::Missing);
        let blocked = tried(OK, None, Some(Err("Operation not permitted".into())));
        assert_eq!(judge(&blocked, None).state, State::Missing);
    }

    #[test]
    fn what_could_not_be_tried_is_not_called_well() {
        let finding = judge(&tried(OK, None, None), Some(&"there is none".to_owned()));
        assert_eq!(finding.state, State::Degraded);
        assert!(finding.found.ends_with("there is none"));
        let findings = not_root();
        assert_eq!(findings.len(), Hook::ALL.len() + 1);
        assert!(
            findings
                .iter()
                .all(|finding| finding.state == State::Missing)
        );
    }
}

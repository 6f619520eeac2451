//! System call filters. Every command gets one (seccomp(2)).

use std::{fs, io, path::Path};

use super::finding::Finding;

const NAME: &str = "seccomp";

/// The action that qfence's filter uses, by its name in the kernel.
const ANSWER: &str = "errno";

/// Reads the supported actions of filters from `proc`.
#[must_use]
pub fn examine(proc: &Path) -> Finding {
    judge(fs::read_to_string(
        proc.join("sys/kernel/seccomp/actions_avail"),
    ))
}

fn judge(actions: io::Result<String>) -> Finding {
    match actions {
        Ok(actions) if actions.split_whitespace().any(|name| name == ANSWER) => {
            Finding::ok(NAME, "the kernel supports system call filters")
        }
        Err(error) if error.kind() != io::ErrorKind::NotFound => Finding::degraded(
            NAME,
            format!("unknown: {error}"),
            "try `qfence-user exec`: without filters it does not start",
        ),
        _ => Finding::missing(
            NAME,
            "the kernel has no system call filters",
            "use a kernel with CONFIG_SECCOMP_FILTER",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::finding::State, *};

    #[test]
    fn a_kernel_without_filters_cannot_fence() {
        let with = |text: &str| judge(Ok(text.to_owned())).state;
        assert_eq!(with("kill_process trap errno allow\n"), State::Ok);
        assert_eq!(with("kill\n"), State::Missing);
        let failed = |kind: io::ErrorKind| judge(Err(kind.into())).state;
        assert_eq!(failed(io::ErrorKind::NotFound), State::Missing);
        assert_eq!(failed(io::ErrorKind::PermissionDenied), State::Degraded);
    }
}

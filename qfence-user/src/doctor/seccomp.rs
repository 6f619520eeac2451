//! Filters of system calls, of which every command gets one (seccomp(2)).

use std::{fs, io, path::Path};

use super::finding::Finding;

const NAME: &str = "seccomp";

/// What a filter answers with here, as the kernel names it.
const ANSWER: &str = "errno";

/// Reads what filters may answer with, from the directory of process information.
#[must_use]
pub fn examine(proc: &Path) -> Finding {
    judge(fs::read_to_string(
        proc.join("sys/kernel/seccomp/actions_avail"),
    ))
}

fn judge(actions: io::Result<String>) -> Finding {
    match actions {
        Ok(actions) if actions.split_whitespace().any(|name| name == ANSWER) => {
            Finding::ok(NAME, "the kernel has filters of system calls")
        }
        Err(error) if error.kind() != io::ErrorKind::NotFound => Finding::degraded(
            NAME,
            format!("unknown: {error}"),
            "see whether `qfence-user exec` starts: it does not without",
        ),
        _ => Finding::missing(
            NAME,
            "the kernel has no filters of system calls",
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

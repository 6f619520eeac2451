//! The kernel's version. It is only a hint, because distributions backport features.

use super::finding::Finding;
use crate::base::release::{Version, parse};

const NAME: &str = "kernel";

/// Local storage of sockets in cgroup programs: the newest feature that the programs need.
const NEEDED: Version = Version(5, 10);

/// Judges a kernel release.
#[must_use]
pub fn judge(release: &str) -> Finding {
    match parse(release) {
        Some(version) if version >= NEEDED => Finding::ok(NAME, format!("Linux {release}")),
        Some(_) => Finding::degraded(
            NAME,
            format!("Linux {release}, which is older than 5.10"),
            "the checks of programs decide, because they really load them; if one is missing, use a newer kernel",
        ),
        None => Finding::degraded(
            NAME,
            format!("an unknown release: {release:?}"),
            "the checks of programs decide, because they really load them",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::finding::State, *};

    #[test]
    fn an_old_kernel_is_no_verdict_as_features_are_carried_back() {
        assert_eq!(judge("5.10.0-30-amd64").state, State::Ok);
        assert_eq!(judge("4.18.0-553.el8").state, State::Degraded);
        assert_eq!(judge("").state, State::Degraded);
    }
}

//! What the kernel's version says. It only hints at what the kernel can do: distributions carry features back.

use super::finding::Finding;
use crate::base::release::{Version, parse};

const NAME: &str = "kernel";

/// Storage of sockets in programs of cgroups, the youngest of what the programs cannot do without.
const NEEDED: Version = Version(5, 10);

/// Judges a release.
#[must_use]
pub fn judge(release: &str) -> Finding {
    match parse(release) {
        Some(version) if version >= NEEDED => Finding::ok(NAME, format!("Linux {release}")),
        Some(_) => Finding::degraded(
            NAME,
            format!("Linux {release}, which is older than 5.10"),
            "go by the program lines, which are of real loads; if one is missing, use a newer kernel",
        ),
        None => Finding::degraded(
            NAME,
            format!("an odd release: {release:?}"),
            "go by the program lines, which are of real loads",
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

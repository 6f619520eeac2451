//! The kernel's version. It only hints at what the kernel can do: distributions carry features back.

use super::finding::Finding;

const NAME: &str = "kernel";

/// A version of Linux, as 5.18.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u32, pub u32);

impl Version {
    /// The first that keeps a socket's cgroup of version 2 apart from its class of version 1.
    pub const SOCKETS_KEEP_THEIR_CGROUP: Self = Self(5, 15);
    /// The first whose /proc/PID/stat has how a process ends before its first thread has come to that (`do_task_stat`
    /// in fs/proc/array.c).
    pub const STAT_TELLS_THE_END_OF_ALL: Self = Self(5, 17);
}

/// Storage of sockets in programs of cgroups, the youngest of what the programs cannot do without.
const NEEDED: Version = Version(5, 10);

/// The version in a release such as `6.1.0-39-cloud-amd64`.
#[must_use]
pub fn parse(release: &str) -> Option<Version> {
    let mut numbers = release.split(|character: char| !character.is_ascii_digit());
    let mut next = || numbers.next()?.parse().ok();
    Some(Version(next()?, next()?))
}

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
    fn releases_have_versions() {
        for (release, version) in [
            ("6.18.44-fc-v445", Version(6, 18)),
            ("5.10.0", Version(5, 10)),
            ("6.1.0-39-cloud-amd64", Version(6, 1)),
            ("4.18-rc1", Version(4, 18)),
        ] {
            assert_eq!(parse(release), Some(version));
        }
        assert_eq!(parse("six"), None);
        assert_eq!(parse(""), None);
    }

    #[test]
    fn an_old_kernel_is_no_verdict_as_features_are_carried_back() {
        assert_eq!(judge("5.10.0-30-amd64").state, State::Ok);
        assert_eq!(judge("4.18.0-553.el8").state, State::Degraded);
        assert_eq!(judge("").state, State::Degraded);
    }
}

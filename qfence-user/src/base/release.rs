//! The kernel's version. It is only a hint at the kernel's features, because distributions backport them.

/// A version of Linux, such as 5.18.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u32, pub u32);

impl Version {
    /// The first that keeps a socket's cgroup v2 apart from its class of cgroup v1.
    pub const SOCKETS_KEEP_THEIR_CGROUP: Self = Self(5, 15);
    /// The first whose /proc/PID/stat has the exit status of a process before its first thread has ended
    /// (`do_task_stat` in fs/proc/array.c).
    pub const STAT_TELLS_THE_END_OF_ALL: Self = Self(5, 17);
}

/// Parses the version in a release such as `6.1.0-39-cloud-amd64`.
#[must_use]
pub fn parse(release: &str) -> Option<Version> {
    let mut numbers = release.split(|character: char| !character.is_ascii_digit());
    let mut next = || numbers.next()?.parse().ok();
    Some(Version(next()?, next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

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
}

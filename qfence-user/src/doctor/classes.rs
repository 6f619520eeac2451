//! net_cls and net_prio, the controllers of cgroup v1 that mark sockets. Before Linux 5.15 they remove sockets from
//! their cgroups of version 2; see [`crate::kernel::proof`].

use std::{fs, path::Path};

use super::finding::Finding;
use crate::base::release::{self, Version};

const NAME: &str = "net_cls, net_prio";

/// Reads and judges /proc/cgroups. Before Linux 6.12 the file always exists.
#[must_use]
pub fn examine(proc: &Path) -> Finding {
    let read = |file: &str| fs::read_to_string(proc.join(file)).unwrap_or_default();
    judge(
        release::parse(&read("sys/kernel/osrelease")),
        &read("cgroups"),
    )
}

/// Judges /proc/cgroups. There, the hierarchy of a controller is 0 if no cgroup v1 hierarchy uses it.
#[must_use]
pub fn judge(version: Option<Version>, cgroups: &str) -> Finding {
    if version.is_some_and(|version| version >= Version::SOCKETS_KEEP_THEIR_CGROUP) {
        return Finding::ok(NAME, "irrelevant to fences on this kernel");
    }
    let mounted = cgroups.lines().any(|line| {
        let mut fields = line.split_whitespace();
        let is_one = matches!(fields.next(), Some("net_cls" | "net_prio"));
        is_one && fields.next() != Some("0")
    });
    if !mounted {
        return Finding::ok(NAME, "not mounted");
    }
    Finding::degraded(
        NAME,
        "mounted; once they are used, `exec` starts nothing until the next boot, and sockets that \
         are made in fences that run are not held",
        "boot with cgroup_no_v1=net_cls,net_prio, or use Linux 5.15 or newer",
    )
}

#[cfg(test)]
mod tests {
    use super::{super::finding::State, *};

    #[test]
    fn they_matter_where_they_are_mounted_on_an_old_kernel() {
        let table = |hierarchy| {
            format!(
                "#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpu\t1\t1\t1\nnet_cls\t0\t2\t1\n\
                 net_prio\t{hierarchy}\t2\t1\n"
            )
        };
        for (version, hierarchy, state) in [
            (Some(Version(5, 10)), "7", State::Degraded),
            (Some(Version(5, 14)), "7", State::Degraded),
            (None, "7", State::Degraded),
            (Some(Version(5, 10)), "0", State::Ok),
            (Some(Version(5, 15)), "7", State::Ok),
        ] {
            assert_eq!(
                judge(version, &table(hierarchy)).state,
                state,
                "{version:?}"
            );
        }
        assert_eq!(judge(Some(Version(5, 10)), "").state, State::Ok);
    }

    #[test]
    fn it_is_read_where_the_kernel_tells() {
        let proc = tempfile::tempdir().unwrap();
        fs::create_dir_all(proc.path().join("sys/kernel")).unwrap();
        fs::write(
            proc.path().join("sys/kernel/osrelease"),
            "5.10.0-30-amd64\n",
        )
        .unwrap();
        fs::write(proc.path().join("cgroups"), "net_cls\t4\t1\t1\n").unwrap();
        assert_eq!(examine(proc.path()).state, State::Degraded);
        fs::write(proc.path().join("sys/kernel/osrelease"), "6.1.0\n").unwrap();
        assert_eq!(examine(proc.path()).state, State::Ok);
    }
}

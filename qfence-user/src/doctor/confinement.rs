//! Other protection of the kernel: lockdown, security modules, and the rights of unprivileged users.

use std::{fs, path::Path};

use super::finding::Finding;

const LOCKDOWN: &str = "lockdown";
const MODULES: &str = "security modules";
const UNPRIVILEGED_BPF: &str = "unprivileged bpf";
const USER_NAMESPACES: &str = "user namespaces";

/// The file system type of securityfs.
const SECURITYFS: &str = "securityfs";

/// Examines `securityfs`, usually /sys/kernel/security, and the sysctls in `proc`.
#[must_use]
pub fn examine(securityfs: &Path, proc: &Path) -> Vec<Finding> {
    let known = fs::read_to_string(proc.join("filesystems")).unwrap_or_default();
    let has_securityfs = known.split_whitespace().any(|word| word == SECURITYFS);
    // The directory is empty if securityfs is not mounted.
    let mounted = fs::read_dir(securityfs).is_ok_and(|mut entries| entries.next().is_some());
    let setting = match (mounted, has_securityfs) {
        (true, _) => Setting::Mounted,
        (false, true) => Setting::NotMounted,
        (false, false) => Setting::None,
    };
    let read = |name: &str| fs::read_to_string(securityfs.join(name)).ok();
    let sysctl = |name: &str| {
        let text = fs::read_to_string(proc.join("sys").join(name)).ok()?;
        text.trim().parse().ok()
    };
    vec![
        judge_lockdown(setting, read("lockdown").as_deref(), securityfs),
        judge_modules(setting, read("lsm").as_deref(), securityfs),
        judge_unprivileged_bpf(sysctl("kernel/unprivileged_bpf_disabled")),
        judge_user_namespaces(
            sysctl("user/max_user_namespaces"),
            sysctl("kernel/unprivileged_userns_clone"),
            sysctl("kernel/apparmor_restrict_unprivileged_userns"),
        ),
    ]
}

/// The state of securityfs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Setting {
    Mounted,
    NotMounted,
    /// The kernel has no securityfs.
    None,
}

fn unknown(name: &str, securityfs: &Path) -> Finding {
    Finding::degraded(
        name,
        "unknown: securityfs is not mounted",
        format!(
            "`mount -t securityfs securityfs {}`, and run doctor again",
            securityfs.display()
        ),
    )
}

/// Lockdown disables `bpf_probe_read_kernel` at the level `confidentiality`, and `bpf_probe_write_user` at the level
/// `integrity` (`bpf_base_func_proto` in kernel/bpf/helpers.c). qfence's programs use neither.
fn judge_lockdown(setting: Setting, lockdown: Option<&str>, securityfs: &Path) -> Finding {
    // `none [integrity] confidentiality`
    let level = lockdown.and_then(|text| {
        let (_, after) = text.split_once('[')?;
        after.split(']').next()
    });
    match (setting, level) {
        (Setting::NotMounted, _) => unknown(LOCKDOWN, securityfs),
        (_, None) => Finding::ok(LOCKDOWN, "none: not in this kernel, or not active"),
        (_, Some("confidentiality")) => Finding::ok(
            LOCKDOWN,
            "confidentiality: programs must not read kernel memory; qfence's do not",
        ),
        (_, Some(level)) => Finding::ok(LOCKDOWN, level),
    }
}

fn judge_modules(setting: Setting, lsm: Option<&str>, securityfs: &Path) -> Finding {
    let Some(list) = lsm.map(str::trim).filter(|list| !list.is_empty()) else {
        return match setting {
            Setting::NotMounted => unknown(MODULES, securityfs),
            _ => Finding::ok(MODULES, "none"),
        };
    };
    let strict: Vec<&str> = list
        .split(',')
        .filter(|name| ["selinux", "apparmor", "smack", "tomoyo"].contains(name))
        .collect();
    if strict.is_empty() {
        Finding::ok(MODULES, list)
    } else {
        Finding::ok(
            MODULES,
            format!(
                "{list}: if a program is missing, {} may be the reason",
                strict.join(" or ")
            ),
        )
    }
}

/// The values are those of Documentation/admin-guide/sysctl/kernel.rst.
fn judge_unprivileged_bpf(disabled: Option<u64>) -> Finding {
    let found = match disabled {
        Some(0) => {
            "on (kernel.unprivileged_bpf_disabled=0): users may load programs of two kinds; to \
             attach one to a cgroup they would need CAP_NET_ADMIN"
        }
        Some(1) => "off until the next boot (kernel.unprivileged_bpf_disabled=1)",
        Some(_) => "off (kernel.unprivileged_bpf_disabled=2)",
        None => "off: this kernel has no kernel.unprivileged_bpf_disabled",
    };
    Finding::ok(UNPRIVILEGED_BPF, found)
}

/// User namespaces do not help a process out of its fence. A socket made in one has the cgroup of the process that made
/// it. Only root of the host may write to `cgroup.procs`. The peers of the reply exception are stored per network
/// namespace.
fn judge_user_namespaces(
    most: Option<u64>,
    debian_switch: Option<u64>,
    ubuntu_restriction: Option<u64>,
) -> Finding {
    let off = match (most, debian_switch, ubuntu_restriction) {
        (None, _, _) => Some("not supported by this kernel"),
        (Some(0), _, _) => Some("off (user.max_user_namespaces=0)"),
        (_, Some(0), _) => Some("for root only (kernel.unprivileged_userns_clone=0)"),
        (_, _, Some(1)) => Some(
            "for programs that AppArmor allows (kernel.apparmor_restrict_unprivileged_userns=1); they \
             stay in their fence",
        ),
        _ => None,
    };
    Finding::ok(
        USER_NAMESPACES,
        off.unwrap_or(
            "users can make them; a fenced process stays in its fence there, because its sockets keep \
             its cgroup, and root of a user namespace cannot write to the host's cgroups",
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::{super::finding::State, *};

    fn host(files: &[(&str, &str)]) -> (tempfile::TempDir, Vec<Finding>) {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let findings = examine(&dir.path().join("security"), &dir.path().join("proc"));
        (dir, findings)
    }

    #[test]
    fn the_files_are_read() {
        let (_dir, findings) = host(&[
            ("security/lockdown", "none [integrity] confidentiality\n"),
            (
                "security/lsm",
                "lockdown,capability,landlock,yama,apparmor,bpf",
            ),
            ("proc/filesystems", "nodev\tsecurityfs\n"),
            ("proc/sys/kernel/unprivileged_bpf_disabled", "2\n"),
            ("proc/sys/user/max_user_namespaces", "0\n"),
        ]);
        assert!(findings.iter().all(|finding| finding.state == State::Ok));
        assert_eq!(findings[0].found, "integrity");
        assert!(
            findings[1].found.ends_with("apparmor may be the reason"),
            "{findings:?}"
        );
        assert!(findings[2].found.contains("=2"), "{findings:?}");
        assert!(findings[3].found.starts_with("off"), "{findings:?}");
    }

    #[test]
    fn confidentiality_is_told_and_harmless() {
        let (_dir, findings) = host(&[("security/lockdown", "none integrity [confidentiality]\n")]);
        assert_eq!(findings[0].state, State::Ok);
        assert!(findings[0].found.starts_with("confidentiality"));
    }

    #[test]
    fn what_is_not_mounted_is_unknown_and_what_the_kernel_lacks_is_not() {
        let (dir, findings) = host(&[("proc/filesystems", "nodev\tsecurityfs\n")]);
        for finding in &findings[..2] {
            assert_eq!(finding.state, State::Degraded);
            assert!(finding.found.starts_with("unknown"));
            let setting = dir.path().join("security").display().to_string();
            assert!(finding.fix.as_ref().unwrap().contains(&setting));
        }
        let (_dir, findings) = host(&[("proc/filesystems", "nodev\ttmpfs\n")]);
        assert!(findings.iter().all(|finding| finding.state == State::Ok));
    }

    #[test]
    fn each_switch_of_user_namespaces_is_known() {
        let found = |most, debian, ubuntu| judge_user_namespaces(most, debian, ubuntu).found;
        assert!(found(None, None, None).starts_with("not supported by this kernel"));
        assert!(found(Some(9), Some(0), None).starts_with("for root only"));
        assert!(found(Some(9), Some(1), Some(1)).contains("AppArmor"));
        assert!(found(Some(9), Some(1), Some(0)).starts_with("users can make them"));
    }
}

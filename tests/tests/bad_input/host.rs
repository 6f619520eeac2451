//! Hosts and callers that lack what a fence needs.

use std::{fs, process::Command};

use anyhow::Result;
use tests::{
    fence::qfence,
    mounts::{host_with, mount_new, unmount_all},
    namespace::{NOBODY, Namespace},
    run::to_end,
    seccomp::without_seccomp,
    workspace,
};

use super::refused_by;

#[test]
fn only_root_can() -> Result<()> {
    let dir = tempfile::tempdir()?;
    workspace::make_readable(dir.path())?;
    let program = dir.path().join("qfence-user");
    fs::copy(qfence()?, &program)?;
    let outside = Namespace::new()?;
    let message = "qfence: error: this must be run as root: try `sudo qfence-user …`\n";
    assert_eq!(
        refused_by(outside.command_as(NOBODY, &program), &[])?,
        message
    );
    for verb in [&["ps"][..], &["rm", "x"], &["set", "x", "--reload"]] {
        let mut command = outside.command_as(NOBODY, &program);
        command.args(verb);
        let ended = to_end(command)?;
        assert_eq!((ended.code(), ended.stderr.as_str()), (Some(125), message));
    }
    Ok(())
}

#[test]
fn a_hook_of_a_users_container_says_that_it_cannot_fence() -> Result<()> {
    let state = format!(r#"{{"id":"{}","pid":2147483647}}"#, "ab".repeat(32));
    let call = format!(
        "echo '{state}' | {} oci-hook createRuntime",
        qfence()?.display()
    );
    let message = "a hook cannot fence the container of a user other than root";
    let by_user = ["--user", "--map-root-user"];
    for (options, expected) in [(&by_user[..], true), (&[], false)] {
        let mut command = Command::new("unshare");
        command.args(options).args(["sh", "-c", &call]);
        let ended = to_end(command)?;
        assert_eq!(ended.code(), Some(125), "{ended:?}");
        assert_eq!(ended.stderr.contains(message), expected, "{ended:?}");
    }
    Ok(())
}

#[test]
fn a_host_with_cgroup_v1_alone_is_told_what_to_do() -> Result<()> {
    let host = host_with(|| {
        unmount_all("cgroup2")?;
        if !fs::read_to_string("/proc/thread-self/mountinfo")?.contains(" - cgroup ") {
            mount_new("cgroup", "/mnt", Some("none,name=qfence-test"))?;
        }
        Ok(())
    })?;
    assert_eq!(
        refused_by(host.command(qfence()?), &[])?,
        "qfence: error: only cgroup v1 is mounted, and qfence needs cgroup v2: boot with \
         systemd.unified_cgroup_hierarchy=1, or mount it beside v1 with \
         `mkdir /sys/fs/cgroup/unified && mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified`\n"
    );
    Ok(())
}

#[test]
fn a_host_without_cgroups_is_told_what_to_do() -> Result<()> {
    let host = host_with(|| {
        unmount_all("cgroup2")?;
        unmount_all("cgroup")
    })?;
    assert_eq!(
        refused_by(host.command(qfence()?), &[])?,
        "qfence: error: no cgroup2 file system is mounted here (`ip netns exec` hides it: call \
         qfence outside of it, `exec` with --netns NAME): mount it with `mount -t cgroup2 cgroup2 /sys/fs/cgroup`\n"
    );
    Ok(())
}

#[test]
fn without_filters_of_system_calls_nothing_runs() -> Result<()> {
    for options in [&[][..], &["--allow-new-privs"], &["--user", "root"]] {
        let mut command = Command::new(qfence()?);
        without_seccomp(&mut command);
        let said = refused_by(command, options)?;
        let last = said.lines().last().unwrap_or_default();
        assert_eq!(
            last,
            "qfence: error: cannot install the system call filter for the command (this kernel has no system call \
             filters, without which the fence does not cover 32-bit calls: use one with \
             CONFIG_SECCOMP_FILTER): Function not implemented (os error 38)"
        );
    }
    Ok(())
}

#[test]
fn without_a_place_for_bpffs_nothing_runs() -> Result<()> {
    let host = host_with(|| {
        mount_new("tmpfs", "/sys/fs", None)?;
        mount_new("cgroup2", "/mnt", None)
    })?;
    assert_eq!(
        refused_by(host.command(qfence()?), &[])?,
        "qfence: error: no bpffs is mounted at /sys/fs/bpf, and mounting it failed: ENOENT: No \
         such file or directory\n"
    );
    Ok(())
}

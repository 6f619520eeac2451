//! Hosts and callers that lack what a fence needs.

use std::{fs, process::Command};

use anyhow::Result;
use tests::{
    fence::qfence,
    mounts::{host_with, mount_new, mounted, unmount_all},
    namespace::{NOBODY, Namespace},
    workspace,
};

use super::{Findings, examine, is_foreign};

#[test]
fn a_host_with_cgroup_v1_alone_is_told_what_to_do() -> Result<()> {
    let host = host_with(|| {
        unmount_all("cgroup2")?;
        if mounted("cgroup")?.is_empty() {
            mount_new("cgroup", "/mnt", Some("none,name=qfence-test"))?;
        }
        Ok(())
    })?;
    let (code, findings) = examine(host.command(qfence()?))?;
    assert_eq!(code, 1);
    let finding = &findings["cgroup2"];
    assert_eq!(finding.state, "missing");
    assert!(finding.found.starts_with("only cgroup v1"), "{finding:?}");
    assert!(finding.fix.as_ref().unwrap().contains("mount -t cgroup2"));
    // All else is found out: the programs are loaded, and there is nothing to attach them to.
    let program = &findings["program connect4"];
    assert_eq!(program.state, "degraded", "{program:?}");
    assert!(program.found.starts_with("loaded; "), "{program:?}");
    assert!(!findings.keys().any(|name| is_foreign(name)));
    Ok(())
}

#[test]
fn bpffs_is_mounted_for_a_trial_alone() -> Result<()> {
    let host = host_with(|| unmount_all("bpf"))?;
    let (code, findings) = examine(host.command(qfence()?))?;
    assert_eq!((code, findings["bpffs"].state.as_str()), (0, "ok"));
    assert!(
        findings["bpffs"].found.contains("`exec` will mount it"),
        "{findings:#?}"
    );
    assert_eq!(host.run(|| mounted("bpf"))?, [""; 0]);

    let host = host_with(|| {
        mount_new("tmpfs", "/sys/fs", None)?;
        mount_new("cgroup2", "/mnt", None)
    })?;
    let (code, findings) = examine(host.command(qfence()?))?;
    assert_eq!((code, findings["bpffs"].state.as_str()), (1, "missing"));
    Ok(())
}

#[test]
fn who_is_not_root_is_told_all_the_same() -> Result<()> {
    let dir = tempfile::tempdir()?;
    workspace::make_readable(dir.path())?;
    let program = dir.path().join("qfence-user");
    fs::copy(qfence()?, &program)?;
    let outside = Namespace::new()?;
    let (code, findings) = examine(outside.command_as(NOBODY, &program))?;
    assert_eq!(code, 1);
    assert_eq!(findings["root"].state, "missing");
    assert!(
        findings["root"].found.starts_with("not root"),
        "{findings:#?}"
    );
    for name in ["program connect4", "bpf_set_retval", "foreign programs"] {
        assert!(findings[name].found.starts_with("not checked"), "{name}");
        assert_eq!(findings[name].state, "missing", "{name}");
    }
    // What anybody can see.
    for name in ["kernel", "cgroup2", "bpffs"] {
        assert_eq!(findings[name].state, "ok", "{name}: {findings:#?}");
    }
    Ok(())
}

#[test]
fn a_capability_that_is_missing_is_named_and_its_want_seen_in_the_loads() -> Result<()> {
    let with = |dropped: &str| -> Result<(i32, Findings)> {
        let mut command = Command::new("setpriv");
        command
            .arg(format!("--bounding-set={dropped}"))
            .arg(qfence()?);
        examine(command)
    };
    let (code, findings) = with("-sys_admin,-perfmon")?;
    assert_eq!(code, 1);
    assert!(findings["capabilities"].found.contains("CAP_PERFMON"));
    let program = &findings["program connect4"];
    assert_eq!(program.state, "missing");
    assert!(
        !program.found.contains('\n') && program.found.len() < 400,
        "{program:?}"
    );
    // The control: the rest stand in for it.
    let (code, findings) = with("-sys_admin")?;
    assert_eq!(code, 0, "{findings:#?}");
    Ok(())
}

//! `doctor` on this machine.

use std::{fs, process::Command};

use anyhow::{Context as _, Result};
use tests::{
    fence::qfence,
    mounts::{host_with, mount_new},
    private::Private,
    run::to_end,
};

use super::{examine, is_foreign};

/// Further findings on a host that has cgroup2.
const WITH_CGROUP2: [&str; 3] = [
    "cgroup containment",
    "delegated subtrees",
    "resource limits",
];

#[test]
fn this_machine_has_what_is_needed() -> Result<()> {
    let (code, findings) = examine(Command::new(qfence()?))?;
    assert_eq!(code, 0, "{findings:#?}");
    for name in WITH_CGROUP2 {
        assert!(findings.contains_key(name), "{findings:#?}");
    }
    assert!(
        findings.keys().any(|name| is_foreign(name)),
        "{findings:#?}"
    );
    for (name, finding) in &findings {
        if name.starts_with("program ") {
            assert_eq!(finding.state, "ok", "{finding:?}");
            assert_eq!(finding.found, "loaded, and attached to a cgroup");
        }
    }
    for name in ["network devices", "packets from guests", "rules by name"] {
        assert_eq!(findings[name].state, "ok", "{findings:#?}");
    }
    Ok(())
}

#[test]
fn the_table_says_the_same() -> Result<()> {
    let (code, findings) = examine(Command::new(qfence()?))?;
    let mut command = Command::new(qfence()?);
    command.arg("doctor");
    let ended = to_end(command)?;
    assert_eq!(ended.code(), Some(code));
    for (name, finding) in &findings {
        let line = ended
            .stdout
            .lines()
            .find(|line| line.trim_start().starts_with(&format!("{name}  ")))
            .with_context(|| format!("no {name} in {}", ended.stdout))?;
        assert!(line.contains(&finding.state), "{line}");
    }
    Ok(())
}

#[test]
fn nothing_is_left() -> Result<()> {
    let host = Private::new()?;
    let (_, findings) = examine(host.qfence()?)?;
    assert_eq!(findings["program connect4"].state, "ok", "it was attached");
    assert!(host.left()?.is_empty(), "{:?}", host.left()?);
    // Programs and links that are not pinned end with the process.
    let pinned = host
        .namespace()
        .run(|| Ok(fs::exists("/sys/fs/bpf/qfence")?))?;
    let described = host.namespace().run(|| Ok(fs::exists("/run/qfence")?))?;
    assert_eq!((pinned, described), (false, false));
    Ok(())
}

#[test]
fn what_no_host_lacks_is_a_failure_of_doctor() -> Result<()> {
    let host = host_with(|| mount_new("tmpfs", "/proc/sys", None))?;
    let mut command = host.command(qfence()?);
    command.arg("doctor");
    let ended = to_end(command)?;
    assert_eq!(ended.code(), Some(125), "{ended:?}");
    assert!(
        ended.stderr.starts_with("qfence: error: cannot read /proc"),
        "{ended:?}"
    );
    Ok(())
}

//! A fence that is made in a fence would stand beside it, and the outer policy be gone: it is not made.

use std::{path::Path, process::Command};

use anyhow::{Context as _, Result};
use tests::{
    fence::{Fence, qfence, unique_name},
    private::Private,
    remains,
    run::{Ended, fenced, to_end, without_sudo},
};

/// Has a root shell in a fence run a script, to which $1 is the program under test.
fn inside(fence: &Fence, script: &str) -> Result<Ended> {
    let program = qfence()?;
    let program = program.to_str().context("a path")?;
    to_end(fenced(fence, &["sh", "-c", script, "sh", program]))
}

fn assert_refused(ended: &Ended, outer: &str) {
    let message = format!(
        "qfence: error: this process is in the fence {outer:?} already, whose policy would not apply to a command in \
         another fence: run qfence outside of it, or start the command without qfence\n"
    );
    assert_eq!(ended.code(), Some(125), "{ended:?}");
    assert_eq!(ended.stdout, "", "{ended:?}");
    assert!(ended.stderr.ends_with(&message), "{ended:?}");
}

#[test]
fn exec_in_a_fence_starts_nothing() -> Result<()> {
    let inner = unique_name("inner");
    let exec = format!("\"$1\" exec --name {inner} -- echo started");
    let mut control = Command::new("sh");
    control.args(["-c", &exec, "sh"]).arg(qfence()?);
    without_sudo(&mut control);
    assert_eq!(to_end(control)?.stdout, "started\n", "control");

    for script in [
        exec.clone(),
        // The cgroup is another one below, which root can make.
        format!("mkdir -p $D/below && echo $$ > $D/below/cgroup.procs && {exec}"),
        // The kernel shows paths from there on.
        format!("unshare --cgroup sh -c '{exec}' sh \"$1\""),
        format!("{exec} --verify"),
    ] {
        let script = script.replace("exec --name", "exec --log none --name");
        let outer = Fence::new("outer")?.with(&["--user", "root"]);
        let directory = remains::cgroup2_mount()?.join("qfence").join(outer.name());
        let script = format!("D={}; {script}", directory.display());
        assert_refused(&inside(&outer, &script)?, outer.name());
        remains::ensure_none(&inner)?;
    }
    Ok(())
}

#[test]
fn verify_in_a_fence_shows_nothing() -> Result<()> {
    let outer = Fence::new("outer")?.with(&["--user", "root"]);
    assert_refused(&inside(&outer, "\"$1\" verify --short")?, outer.name());
    Ok(())
}

#[test]
fn what_looks_at_fences_works_in_one() -> Result<()> {
    let outer = Fence::new("outer")?.with(&["--user", "root"]);
    let ended = inside(&outer, "\"$1\" ps")?;
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    assert!(ended.stdout.contains(outer.name()), "{ended:?}");
    Ok(())
}

/// Whoever has moved to another cgroup is in no fence, whatever has become of the old one.
#[test]
fn beside_a_fence_another_is_made() -> Result<()> {
    let host = Private::new()?;
    let mut command = host.qfence()?;
    without_sudo(command.args(["exec", "--log", "none", "--", "echo", "started"]));
    let ended = to_end(command)?;
    assert_eq!(ended.stdout, "started\n", "{ended:?}");
    assert!(Path::new("/proc/self/cgroup").exists());
    Ok(())
}

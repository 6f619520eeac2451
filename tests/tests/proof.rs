//! No command starts in a fence that does not hold it, and the proof of that leaves no trace.
//!
//! The faults are strace's, which fakes the outcome of a system call: what a kernel did that keeps
//! programs attached and runs them for no socket.

use std::{fs, os::unix::fs::PermissionsExt as _, process::Command};

use anyhow::{Result, ensure};
use tests::{
    fence::{Fence, qfence, unique_name},
    listener::Listeners,
    probe, remains,
    run::{fenced, to_end, without_sudo},
    seccomp::without_clone3,
    world::World,
};

/// Has `exec` try to touch a file while strace tampers with it and its child; makes sure that it did
/// not, that nothing is left, and returns what was said. `change` is for the command that does that.
fn refused(name: &str, faults: &[&str], change: fn(&mut Command)) -> Result<String> {
    let dir = tempfile::tempdir()?;
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777))?;
    let touched = dir.path().join("touched");
    let mut command = Command::new("strace");
    command
        .args(["-f", "-qq", "-o", "/dev/null"])
        .args(faults)
        .arg(qfence()?)
        .args(["exec", "--name", name, "--user", "nobody", "--log", "none"])
        .args(["--", "touch"])
        .arg(&touched);
    without_sudo(&mut command);
    change(&mut command);
    let ended = to_end(command)?;
    ensure!(ended.code() == Some(125), "{faults:?}: {ended:?}");
    ensure!(!touched.exists(), "{faults:?}: it ran: {ended:?}");
    remains::ensure_none(name)?;
    Ok(ended.stderr)
}

/// The message, up to the advice, which depends on the kernel.
fn message(hook: &str, found: &str) -> String {
    format!(
        "qfence: error: cannot prove that the fence covers its sockets, so nothing was started: a \
         socket that is made in it must be refused with ENOANO at {hook}, and {found}; "
    )
}

#[test]
fn a_command_whose_sockets_are_not_in_the_fence_is_not_started() -> Result<()> {
    let name = unique_name("outside");
    // The child is not made in the cgroup, believes to have moved there, and stays where it is.
    let procs = remains::cgroup(&name)?.join("cgroup.procs");
    let faults = [
        "-P",
        &procs.display().to_string(),
        "-e",
        "inject=write:retval=1",
    ];
    let said = refused(&name, &faults, without_clone3)?;
    ensure!(
        said.starts_with(&message("connect4", "it was allowed")),
        "{said}"
    );
    Ok(())
}

#[test]
fn a_command_that_cannot_be_made_in_its_cgroup_moves_there() -> Result<()> {
    let changes: [fn(&mut Command); 2] = [|_| (), without_clone3];
    for (way, change) in ["born", "moved"].into_iter().zip(changes) {
        let fence = Fence::new(way)?.with(&["--user", "nobody"]);
        let mut command = fenced(&fence, &["cat", "/proc/self/cgroup"]);
        change(&mut command);
        let ended = to_end(command)?;
        let line = format!("/qfence/{}\n", fence.name());
        ensure!(ended.code() == Some(0), "{way}: {ended:?}");
        ensure!(ended.stdout.contains(&line), "{way}: {ended:?}");
    }
    Ok(())
}

#[test]
fn a_refusal_that_is_not_the_fences_proves_nothing() -> Result<()> {
    for (nth, hook) in [(1, "connect4"), (2, "connect6"), (3, "connect_unix")] {
        let fault = format!("inject=connect:error=ECONNREFUSED:when={nth}");
        let said = refused(&unique_name("other"), &["-e", &fault], |_| ())?;
        let wanted = message(hook, "it failed with ECONNREFUSED");
        ensure!(said.starts_with(&wanted), "{said}");
    }
    Ok(())
}

#[test]
fn the_proof_is_neither_counted_nor_on_record() -> Result<()> {
    let fence = Fence::new("unseen")?.with(&["--user", "nobody"]);
    let ended = to_end(fenced(&fence, &["true"]))?;
    assert_eq!((ended.code(), ended.stderr.as_str()), (Some(0), ""));
    assert_eq!(fence.refusals()?, []);

    // The control: of what the command does, all is. What were counted and not recorded, it would say.
    let world = World::new()?;
    let services = Listeners::everywhere(&world.host, 8080)?;
    let fence = Fence::new("seen")?.with(&["--user", "nobody"]);
    let mut command = fence.command(&world.host, probe::program()?);
    command.args(["tcp/127.0.0.1/8080", "udp/::1/8080"]);
    let ended = to_end(command)?;
    assert_eq!((ended.code(), ended.stderr.as_str()), (Some(0), ""));
    let hooks: Vec<String> = fence.refusals()?.into_iter().map(|one| one.hook).collect();
    assert_eq!(hooks, ["connect4", "sendmsg6"]);
    assert!(services.arrivals().is_empty());
    Ok(())
}

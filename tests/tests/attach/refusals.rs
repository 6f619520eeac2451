//! What `attach` refuses, by name and with the way out. Nothing is left of it.

use std::{fs, os::unix::fs::chown, process::Command};

use anyhow::{Result, ensure};
use tests::{
    fence::{Fence, qfence},
    namespace::{NOBODY, Namespace},
    run::{fenced, to_end},
    shell::Shell,
};

use super::scene::{Attached, Place, attach, left, remove};

/// That `attach` fails with these words, and leaves nothing.
fn ensure_refused(fence: &Fence, target: &[&str], words: &[&str]) -> Result<()> {
    let host = Namespace::new()?;
    let ended = attach(fence, &host, target)?;
    ensure!(ended.code() == Some(125), "{target:?}: {ended:?}");
    for word in words {
        ensure!(
            ended.stderr.contains(word),
            "{target:?}, {word:?}: {}",
            ended.stderr
        );
    }
    ensure!(left(fence).is_empty(), "{:?}", left(fence));
    Ok(())
}

#[test]
fn cgroups_that_the_host_depends_on_are_refused() -> Result<()> {
    let fence = Fence::new("attach-shared")?;
    let words = ["is in the root of the cgroups", "qfence-user exec"];
    ensure_refused(&fence, &["--cgroup", "/"], &words)?;
    ensure_refused(&fence, &["--cgroup", "/", "--whole-cgroup"], &words)?;
    let own = std::process::id().to_string();
    // Whatever cgroup this test is in, qfence is in it as well.
    ensure_refused(&fence, &["--pid", &own, "--whole-cgroup"], &["error: "])?;
    let running = Fence::new("attach-running")?.with(&["--user", "nobody"]);
    let mut shell = Shell::start(fenced(&running, &["sh"]))?;
    shell.pid()?;
    ensure_refused(&fence, &["--cgroup", "/qfence"], &["belongs to a fence"])?;
    ensure_refused(
        &fence,
        &["--cgroup", "/nowhere"],
        &["cannot find the cgroup"],
    )?;
    ensure_refused(&fence, &["--cgroup", "/etc"], &["cannot find the cgroup"])?;
    ensure_refused(&fence, &["--pid", "2147483647"], &["there is no process"])
}

#[test]
fn a_cgroup_with_strangers_needs_the_user_to_insist() -> Result<()> {
    let fence = Fence::new("attach-strangers")?;
    let place = Place::new(&fence)?;
    let host = Namespace::new()?;
    let mut shell = place.shell(&host)?;
    let other = place.shell(&host)?;
    let pid = shell.pid()?.to_string();
    let stranger = other.started().to_string();
    let words = ["has more than", &stranger, "--whole-cgroup"];
    ensure_refused(&fence, &["--pid", &pid], &words)?;
    let _attached = Attached::start(&fence, &host, &["--pid", &pid, "--whole-cgroup"])?;
    Ok(())
}

#[test]
fn a_cgroup_that_a_user_can_move_processes_out_of_is_refused() -> Result<()> {
    let fence = Fence::new("attach-delegated")?;
    let place = Place::new(&fence)?;
    let user = place.path().join("user");
    let app = user.join("app");
    let scope = app.join("scope");
    fs::create_dir_all(&scope)?;
    let target = ["--cgroup", scope.to_str().unwrap_or_default(), "--detach"];
    let host = Namespace::new()?;
    let ended = attach(&fence, &host, &target)?;
    ensure!(ended.code() == Some(0), "control: {ended:?}");
    remove(&fence)?;
    for path in [&user, &app] {
        chown(path.join("cgroup.procs"), Some(NOBODY.uid), None)?;
    }
    // The error names the uppermost one, which can be fenced.
    let uppermost = format!("{}/user\", which is delegated", fence.name());
    ensure_refused(&fence, &target, &["processes can leave", &uppermost])?;
    let target = ["--cgroup", user.to_str().unwrap_or_default(), "--detach"];
    let ended = attach(&fence, &host, &target)?;
    ensure!(ended.code() == Some(0), "{ended:?}");
    remove(&fence)?;
    for path in [scope, app, user] {
        fs::remove_dir(path)?;
    }
    Ok(())
}

#[test]
fn a_cgroup_has_one_fence_and_a_name_too() -> Result<()> {
    let fence = Fence::new("attach-twice")?;
    let place = Place::new(&fence)?;
    let host = Namespace::new()?;
    let path = place.path().display().to_string();
    let _attached = Attached::start(&fence, &host, &["--cgroup", &path])?;
    let second = Fence::new("attach-second")?;
    let words = ["is that of the fence", fence.name()];
    ensure_refused(&second, &["--cgroup", &path], &words)?;
    // Neither verb takes a name that an attached fence has.
    let below = Place::new(&second)?;
    let there = below.path().display().to_string();
    let named = attach(&fence, &host, &["--cgroup", &there])?;
    ensure!(named.stderr.contains("already exists"), "{named:?}");
    let mut exec = Command::new(qfence()?);
    exec.args(["exec", "--name", fence.name(), "true"]);
    let named = to_end(exec)?;
    ensure!(
        named.code() == Some(125) && named.stderr.contains("already exists"),
        "{named:?}"
    );
    Ok(())
}

#[test]
fn a_command_is_not_taken_out_of_an_attached_fence() -> Result<()> {
    let fence = Fence::new("attach-nested")?;
    let place = Place::new(&fence)?;
    let host = Namespace::new()?;
    let mut shell = place.shell(&host)?;
    let exec = format!("{} exec true 2>&1; echo $?", qfence()?.display());
    let before = shell.ask(&exec)?;
    ensure!(
        before.last().is_some_and(|code| code == "0"),
        "control: {before:?}"
    );
    let path = place.path().display().to_string();
    let _attached = Attached::start(&fence, &host, &["--cgroup", &path])?;
    let after = shell.ask(&exec)?.join("\n");
    ensure!(
        after.ends_with("125") && after.contains(fence.name()),
        "{after}"
    );
    Ok(())
}

#[test]
fn a_log_that_nothing_would_write_to_is_refused() -> Result<()> {
    let fence = Fence::new("attach-log")?;
    let place = Place::new(&fence)?;
    let host = Namespace::new()?;
    let mut shell = place.shell(&host)?;
    let pid = shell.pid()?.to_string();
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("log");
    let log = path.to_str().unwrap_or_default();
    let detached = ["--pid", &pid, "--detach", "--log", log];
    ensure_refused(
        &fence,
        &detached,
        &["nothing writes to the log", "--detach"],
    )?;
    ensure!(!path.exists(), "the log was made");
    // The control: without such a log, the fence is made.
    let ended = attach(&fence, &host, &detached[..3])?;
    ensure!(ended.code() == Some(0), "{ended:?}");
    Ok(())
}

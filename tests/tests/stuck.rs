//! A fence with a process that not even SIGKILL ends: it stays in force, and who it is is said.

use std::process::Command;

use anyhow::{Context as _, Result};
use tests::{
    fence::{Fence, qfence},
    fuse::Fuse,
    process::Process,
    remains,
    run::{Ended, fenced, to_end, wait_until},
    shell::{Shell, state_of},
};

fn qfence_with(words: &[&str]) -> Result<Ended> {
    let mut command = Command::new(qfence()?);
    command.args(words);
    to_end(command)
}

/// That this is the process that is said to be stuck.
fn ensure_described(said: &str, pid: u32) {
    let who = format!("process {pid} (cat, state D, in ");
    assert!(said.contains(&who), "{who:?} is not in {said:?}");
    assert!(said.contains("stays in force"), "{said}");
    assert!(!said.contains("[]"), "{said}");
}

/// That the fence is whole as long as the file system is there, and is cleared by who comes next afterwards.
fn ensure_stays_until_released(fence: &Fence, fuse: &mut Fuse) -> Result<()> {
    let listed = qfence_with(&["ps", "--json"])?;
    let rows: Vec<serde_json::Value> = serde_json::from_str(&listed.stdout)?;
    let row = rows.iter().find(|row| row["name"] == fence.name());
    assert_eq!(row.context(listed.stdout)?["state"], "orphaned");
    remains::ensure_whole(fence.name())?;
    fuse.release()?;
    let events = remains::cgroup(fence.name())?.join("cgroup.events");
    wait_until("nothing is stuck any more", || {
        Ok(!std::fs::read_to_string(&events).is_ok_and(|text| text.contains("populated 1")))
    })?;
    qfence_with(&["ps"])?;
    remains::ensure_none(fence.name())
}

#[test]
fn a_command_that_leaves_a_stuck_process_ends_and_the_fence_stays() -> Result<()> {
    let mut fuse = Fuse::new()?;
    let fence = Fence::new("leftover")?.with(&["--user", "nobody"]);
    let mut shell = Shell::start(fenced(&fence, &["sh"]))?;
    let file = fuse.file().display().to_string();
    let answer = shell.ask(&format!("cat {file} >/dev/null 2>&1 & echo $!"))?;
    let pid: u32 = answer.concat().trim().parse()?;
    fuse.await_reads(1)?;
    shell.tell("exit 3")?;
    assert_eq!(shell.wait_for_code()?, 3, "{}", shell.stderr());
    assert_eq!(state_of(pid), Some('D'));
    ensure_described(&shell.stderr(), pid);
    // It is said once.
    assert_eq!(
        shell.stderr().matches(&format!("process {pid} (")).count(),
        1
    );
    let rm = qfence_with(&["rm", "--time", "1", fence.name()])?;
    assert_eq!(rm.code(), Some(125), "{rm:?}");
    ensure_described(&rm.stderr, pid);
    ensure_stays_until_released(&fence, &mut fuse)
}

#[test]
fn a_command_that_was_killed_and_is_stuck_is_given_up() -> Result<()> {
    let mut fuse = Fuse::new()?;
    let fence = Fence::new("stuck")?.with(&["--user", "nobody"]);
    let file = fuse.file().display().to_string();
    let errors = tempfile::NamedTempFile::new()?;
    let mut command = fenced(&fence, &["cat", &file]);
    command.stderr(errors.reopen()?);
    let mut supervisor = Process::spawn(command)?;
    fuse.await_reads(1)?;
    let pids = remains::pids(fence.name())?;
    let rm = qfence_with(&["rm", "--time", "1", fence.name()])?;
    assert_eq!(rm.code(), Some(125), "{rm:?}");
    ensure_described(&rm.stderr, pids[0]);
    let status = supervisor.wait(tests::run::HANG);
    let said = std::fs::read_to_string(errors.path())?;
    let status = status?.context("exec waits for ever")?;
    assert_eq!(status.code(), Some(125), "{said}");
    assert!(
        said.contains("the command was killed and does not end"),
        "{said}"
    );
    ensure_described(&said, pids[0]);
    ensure_stays_until_released(&fence, &mut fuse)
}

/// The control: what can be killed leaves nothing.
#[test]
fn a_command_that_is_killed_by_rm_is_not_given_up() -> Result<()> {
    let fence = Fence::new("killable")?.with(&["--user", "nobody"]);
    let mut shell = Shell::start(fenced(&fence, &["sh"]))?;
    shell.ask("trap '' TERM")?;
    shell.tell("while :; do sleep 0.05; done")?;
    let rm = qfence_with(&["rm", "--time", "1", fence.name()])?;
    assert_eq!(rm.code(), Some(0), "{rm:?}");
    assert_eq!(shell.wait_for_code()?, 137);
    remains::ensure_none(fence.name())
}

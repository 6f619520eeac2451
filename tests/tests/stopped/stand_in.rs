//! The process that follows the host for a stopped supervisor.

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, Result, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tests::{
    job::{ensure_no_stand_in, stand_ins, wait_for_state},
    remains,
    run::to_end,
    shell::state_of,
    terminal::{CTRL_Z, PROMPT},
};

use super::{Scene, ensure_gone};

#[test]
fn the_stand_in_is_out_of_reach_and_ends_with_a_supervisor_that_is_killed() -> Result<()> {
    let mut scene = Scene::new("reach")?;
    // A group that is orphaned while it is stopped gets SIGHUP, and goes on.
    let supervisor = scene.launch("trap \"\" HUP;", "kill -STOP $$; sleep 1000")?;
    scene.terminal.expect(PROMPT)?;
    wait_for_state(supervisor, 'T')?;
    let [stand_in] = stand_ins(&scene.fence)?[..] else {
        anyhow::bail!("not one stand-in")
    };
    // The control: it can signal what is its own, and continue what is of its session (the supervisor).
    let own = scene.ask("sleep 1000 & kill -STOP $! && kill -CONT $! && kill $! && echo sent")?;
    assert!(own.ends_with("sent\n"), "{own}");
    for signal in ["STOP", "TSTP", "CONT", "KILL"] {
        let said = scene.ask(&format!("kill -{signal} {stand_in} || echo refused"))?;
        assert!(said.contains("not permitted"), "{signal}: {said}");
    }
    // A session, a process group and descriptors of its own, and no terminal.
    let stat = fs::read_to_string(format!("/proc/{stand_in}/stat"))?;
    let fields: Vec<&str> = stat
        .rsplit_once(") ")
        .context("stat")?
        .1
        .split(' ')
        .collect();
    let own = stand_in.to_string();
    assert_eq!(fields[2..5], [own.as_str(), own.as_str(), "0"], "{stat}");
    for fd in fs::read_dir(format!("/proc/{stand_in}/fd"))? {
        let fd = fd?;
        let number: u32 = fd.file_name().to_string_lossy().parse()?;
        let target = fs::read_link(fd.path())?;
        let is_terminal = target.starts_with("/dev/pts");
        assert_eq!(is_terminal, number == 2, "{number}: {}", target.display());
    }

    kill(Pid::from_raw(i32::try_from(supervisor)?), Signal::SIGKILL)?;
    ensure_gone(supervisor)?;
    ensure_gone(stand_in)?;
    ensure_no_stand_in(&scene.fence)?;
    remains::ensure_whole(scene.fence.name())?;
    let outcome = scene.attempt("udp/192.0.2.255/8080")?;
    assert!(outcome.failed_with("ECONNREFUSED"), "{outcome:?}");
    Ok(())
}

/// The most descriptors that `pid` may have for two more to be free.
fn limit_of_two_more(pid: u32) -> usize {
    let is_open = |fd: &usize| Path::new(&format!("/proc/{pid}/fd/{fd}")).is_symlink();
    (0..).filter(|fd| !is_open(fd)).nth(2).unwrap_or_default()
}

#[test]
fn without_a_stand_in_the_supervisor_does_not_stop_and_says_so() -> Result<()> {
    let mut scene = Scene::new("no-stand-in")?;
    let supervisor = scene.launch("", "while read line; do echo \"<$line>\"; done")?;
    let limit = |number: &str| -> Result<()> {
        let mut prlimit = Command::new("prlimit");
        prlimit.args([
            "--pid",
            &supervisor.to_string(),
            &format!("--nofile={number}:"),
        ]);
        let ended = to_end(prlimit)?;
        ensure!(ended.code() == Some(0), "{ended:?}");
        Ok(())
    };
    limit(&limit_of_two_more(supervisor).to_string())?;
    scene.terminal.press(CTRL_Z)?;
    scene
        .terminal
        .expect("qfence: the command was stopped and is continued: ")?;
    scene.terminal.expect("Too many open files")?;
    scene.terminal.type_line("one")?;
    scene.terminal.expect("<one>\r\n")?;
    assert_ne!(state_of(supervisor), Some('T'));
    limit("1024")?;
    scene.terminal.press(CTRL_Z)?;
    scene.terminal.expect(PROMPT)?;
    wait_for_state(supervisor, 'T')?;
    Ok(())
}

//! Job control: what stops a job, what continues it, and what ends it.

use std::process::Command;

use anyhow::Result;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tests::{
    fence::{Fence, qfence},
    job::{
        ensure_ended, ensure_no_stand_in, launch, process_named, stand_ins, supervisor,
        wait_for_state,
    },
    remains,
    run::{to_end, wait_until},
    shell::state_of,
    terminal::{CTRL_Z, PROMPT, Terminal},
};

use super::Scene;

#[test]
fn rm_of_a_stopped_job_leaves_nothing() -> Result<()> {
    let mut scene = Scene::new("rm-stopped")?;
    let supervisor = scene.launch("", "kill -STOP $$; read line")?;
    scene.terminal.expect(PROMPT)?;
    wait_for_state(supervisor, 'T')?;
    let mut rm = Command::new(qfence()?);
    rm.args(["rm", scene.fence.name()]);
    let ended = to_end(rm)?;
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    remains::ensure_none(scene.fence.name())?;
    ensure_no_stand_in(&scene.fence)
}

#[test]
fn a_command_that_ignores_ctrl_z_keeps_the_terminal() -> Result<()> {
    let mut scene = Scene::new("keeps")?;
    let supervisor = scene.launch(
        "trap \"\" TSTP;",
        "while read line; do echo \"<$line>\"; done",
    )?;
    scene.terminal.press(CTRL_Z)?;
    scene.terminal.type_line("one")?;
    scene.terminal.expect("<one>\r\n")?;
    assert_ne!(state_of(supervisor), Some('T'));
    assert_eq!(stand_ins(&scene.fence)?.len(), 0);
    Ok(())
}

#[test]
fn a_job_in_the_background_that_reads_the_terminal_stops_and_is_seen_to() -> Result<()> {
    let fence = Fence::new("reads")?.with(&["--user", "nobody"]);
    let mut terminal = Terminal::start()?;
    launch(
        &mut terminal,
        &fence,
        "sh -c 'read line; echo \"<$line>\"' &",
    )?;
    terminal.expect(PROMPT)?;
    let shell = process_named(&fence, "sh")?;
    let supervisor = supervisor(&fence)?;
    wait_for_state(shell, 'T')?;
    wait_for_state(supervisor, 'T')?;
    // The shell learns of it a moment later.
    wait_until("the shell sees the job stopped", || {
        Ok(terminal.run("jobs")?.contains("[1]+  Stopped"))
    })?;
    assert_eq!(stand_ins(&fence)?.len(), 1);
    terminal.type_line("fg")?;
    terminal.wait_for_foreground(supervisor)?;
    terminal.type_line("typed")?;
    terminal.expect("<typed>\r\n")?;
    terminal.expect(PROMPT)?;
    ensure_ended(&mut terminal, &fence, 0)
}

#[test]
fn a_supervisor_that_is_told_to_stop_stops_its_command() -> Result<()> {
    let fence = Fence::new("told")?.with(&["--user", "nobody"]);
    let mut terminal = Terminal::start()?;
    launch(&mut terminal, &fence, "sleep 1000")?;
    let sleep = process_named(&fence, "sleep")?;
    let supervisor = supervisor(&fence)?;
    let pid = Pid::from_raw(i32::try_from(supervisor)?);
    kill(pid, Signal::SIGTSTP)?;
    terminal.expect(PROMPT)?;
    wait_for_state(sleep, 'T')?;
    wait_for_state(supervisor, 'T')?;
    assert_eq!(stand_ins(&fence)?.len(), 1);
    kill(pid, Signal::SIGCONT)?;
    wait_until("the command goes on", || Ok(state_of(sleep) == Some('S')))?;
    ensure_no_stand_in(&fence)
}

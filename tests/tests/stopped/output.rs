//! A terminal whose output is stopped (Ctrl-S) holds up neither the supervisor nor its end.

use std::{thread, time::Duration};

use anyhow::{Result, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tests::{
    remains,
    terminal::{CTRL_Q, CTRL_S},
};

use super::{INTERNET, LATE, LATE_BROADCAST, Scene, ensure_gone};

#[test]
fn a_terminal_whose_output_is_stopped_does_not_stop_the_following() -> Result<()> {
    let mut scene = Scene::new("output")?;
    scene.launch("", "while read line; do :; done")?;
    scene.terminal.press(CTRL_S)?;
    // Something to be said: a directory is no resolv.conf.
    scene.world.symlink_resolv_conf("/etc")?;
    thread::sleep(Duration::from_secs(2));
    scene.world.write_resolv_conf("nameserver 127.0.0.53\n")?;
    scene.ensure_late_broadcasts_are_refused()?;
    // It was said, and is shown now.
    scene.terminal.press(CTRL_Q)?;
    scene.terminal.expect("qfence: error: cannot read")?;
    Ok(())
}

#[test]
fn traces_on_a_terminal_whose_output_is_stopped_do_not_stop_the_following() -> Result<()> {
    let mut scene = Scene::new("traces")?;
    scene.fence = scene.fence.with(&["-vv"]);
    scene.launch("", "while read line; do :; done")?;
    scene.terminal.press(CTRL_S)?;
    let outcome = scene.attempt(INTERNET)?;
    ensure!(outcome.is_reached(), "{outcome:?}");
    scene.ensure_late_broadcasts_are_refused()?;
    scene.terminal.press(CTRL_Q)?;
    scene.terminal.expect("qfence: trace: ")?;
    Ok(())
}

#[test]
fn a_terminal_whose_output_is_stopped_keeps_neither_the_supervisor_nor_its_end() -> Result<()> {
    let mut scene = Scene::new("output-end")?;
    let supervisor = scene.launch("", "while read line; do :; done")?;
    scene.terminal.press(CTRL_S)?;
    // Words and refusals that nobody shows.
    scene
        .world
        .write_resolv_conf(&"# too long\n".repeat(10_000))?;
    for port in 8081..8091 {
        let outcome = scene.attempt(&format!("tcp/192.0.2.10/{port}"))?;
        ensure!(outcome.failed_with("ECONNREFUSED"), "{outcome:?}");
    }
    thread::sleep(Duration::from_secs(2));
    scene
        .world
        .host_ip(&format!("address add {LATE} brd + dev br0"))?;
    scene.await_in_policy(LATE_BROADCAST)?;
    let outcome = scene.attempt("tcp/198.18.5.1/8080")?;
    ensure!(outcome.failed_with("ECONNREFUSED"), "{outcome:?}");
    kill(Pid::from_raw(i32::try_from(supervisor)?), Signal::SIGTERM)?;
    ensure_gone(supervisor)?;
    remains::ensure_none(scene.fence.name())
}

#[test]
fn the_last_words_wait_for_no_terminal_whose_output_is_stopped() -> Result<()> {
    let mut scene = Scene::new("last-words")?;
    scene.fence = scene.fence.with(&["--log", "stderr"]);
    let supervisor = scene.launch("", "while read line; do :; done")?;
    scene.terminal.press(CTRL_S)?;
    for port in 8081..8111 {
        let outcome = scene.attempt(&format!("tcp/192.0.2.10/{port}"))?;
        ensure!(outcome.failed_with("ECONNREFUSED"), "{outcome:?}");
    }
    kill(Pid::from_raw(i32::try_from(supervisor)?), Signal::SIGTERM)?;
    ensure_gone(supervisor)?;
    remains::ensure_none(scene.fence.name())
}

//! While a job is stopped, the host's addresses and nameservers are followed.

use std::{
    fs,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tests::{
    fence::qfence,
    job::{ensure_ended, ensure_no_stand_in, stand_ins, wait_for_state},
    listener::Listener,
    run::{to_end, wait_until},
    terminal::{CTRL_C, CTRL_Z, PROMPT},
};

use super::{LATE, LATE_BROADCAST, PORT, Scene};

/// Long enough for a fence that follows the host to have seen a change.
const FOLLOWED: Duration = Duration::from_secs(5);

#[test]
fn a_job_that_stops_itself_leaves_no_new_address_open() -> Result<()> {
    let mut scene = Scene::new("self-stop")?;
    let supervisor = scene.launch("", "kill -STOP $$; read line; exit 3")?;
    scene.terminal.expect(PROMPT)?;
    wait_for_state(supervisor, 'T')?;
    scene.ensure_late_broadcasts_are_refused()?;
    scene.terminal.type_line("fg")?;
    scene.terminal.wait_for_foreground(supervisor)?;
    ensure_no_stand_in(&scene.fence)?;
    scene.terminal.press(b'\r')?;
    scene.terminal.expect(PROMPT)?;
    ensure_ended(&mut scene.terminal, &scene.fence, 3)
}

#[test]
fn ctrl_z_leaves_no_new_address_open_to_a_process_that_ignores_it() -> Result<()> {
    let mut scene = Scene::new("ignores")?;
    // The worker ignores it.
    let then = "trap - TSTP; echo re\"\"ady; while read line; do :; done";
    let supervisor = scene.launch("trap \"\" TSTP;", then)?;
    scene.terminal.expect("ready\r\n")?;
    for _ in 1..=2 {
        scene.terminal.press(CTRL_Z)?;
        scene.terminal.expect(PROMPT)?;
        wait_for_state(supervisor, 'T')?;
        assert_eq!(stand_ins(&scene.fence)?.len(), 1);
        scene.terminal.type_line("fg")?;
        scene.terminal.wait_for_foreground(supervisor)?;
        ensure_no_stand_in(&scene.fence)?;
    }
    scene.terminal.press(CTRL_Z)?;
    scene.terminal.expect(PROMPT)?;
    wait_for_state(supervisor, 'T')?;
    scene.ensure_late_broadcasts_are_refused()?;
    scene.terminal.type_line("fg")?;
    scene.terminal.wait_for_foreground(supervisor)?;
    scene.terminal.press(CTRL_C)?;
    scene.terminal.expect(PROMPT)?;
    ensure_ended(&mut scene.terminal, &scene.fence, 130)?;
    ensure_no_stand_in(&scene.fence)
}

#[test]
fn nameservers_are_followed_while_the_job_is_stopped() -> Result<()> {
    const BEFORE: &str = "udp/127.0.0.53/53";
    const AFTER: &str = "udp/192.0.2.10/53";
    let mut scene = Scene::new("nameserver")?;
    let _dns = Listener::udp(&scene.world.host, "0.0.0.0:53".parse()?)?;
    scene.launch("", "kill -STOP $$; read line")?;
    scene.terminal.expect(PROMPT)?;
    let outcome = scene.attempt(BEFORE)?;
    assert!(outcome.is_reached(), "{outcome:?}");
    let outcome = scene.attempt(AFTER)?;
    assert!(outcome.failed_with("ECONNREFUSED"), "{outcome:?}");
    scene.world.write_resolv_conf("nameserver 192.0.2.10\n")?;
    let path = format!("/run/qfence/{}.policy", scene.fence.name());
    let nameservers = |text: &str| -> Result<String> {
        let stored: serde_json::Value = serde_json::from_str(text)?;
        Ok(stored["sets"]["nameservers"].to_string())
    };
    let deadline = Instant::now() + FOLLOWED;
    while Instant::now() < deadline
        && !nameservers(&fs::read_to_string(&path)?)?.contains("192.0.2.10")
    {
        thread::sleep(Duration::from_millis(10));
    }
    let outcome = scene.attempt(AFTER)?;
    assert!(outcome.is_reached(), "{outcome:?}");
    let outcome = scene.attempt(BEFORE)?;
    assert!(outcome.failed_with("ECONNREFUSED"), "{outcome:?}");
    Ok(())
}

#[test]
fn what_was_published_meanwhile_is_known_when_the_job_goes_on() -> Result<()> {
    let mut scene = Scene::new("meanwhile")?;
    let supervisor = scene.launch("", "kill -STOP $$; read line; exit 4")?;
    scene.terminal.expect(PROMPT)?;
    wait_for_state(supervisor, 'T')?;
    scene.ensure_late_broadcasts_are_refused()?;
    // As it was before the stop: the supervisor sees no difference, and the policy in force has one.
    let name = scene.fence.name().to_owned();
    let stand_in = stand_ins(&scene.fence)?.pop().context("a stand-in")?;
    kill(Pid::from_raw(i32::try_from(stand_in)?), Signal::SIGSTOP)?;
    scene
        .world
        .host_ip(&format!("address del {LATE} dev br0"))?;
    scene.terminal.type_line("fg")?;
    scene.terminal.wait_for_foreground(supervisor)?;
    let path = format!("/run/qfence/{name}.policy");
    wait_until("the address is out of the policy", || {
        Ok(!fs::read_to_string(&path)?.contains(LATE_BROADCAST))
    })?;
    ensure_no_stand_in(&scene.fence)?;
    let explained = to_end({
        let mut explain = Command::new(qfence()?);
        explain.args(["explain", &name, &format!("udp:{LATE_BROADCAST}:{PORT}")]);
        explain
    })?;
    assert!(explained.stdout.contains("allow any"), "{explained:?}");
    scene.terminal.press(b'\r')?;
    scene.terminal.expect(PROMPT)?;
    ensure_ended(&mut scene.terminal, &scene.fence, 4)
}

//! `attach --restart` follows a unit that is started anew.

use anyhow::{Context as _, Result, bail, ensure};
use tests::{
    process::Process,
    run::{HANG, wait_until},
};

use super::{Scene, UNIT};

/// Where a service of the host listens.
const PORT: u16 = 8080;

/// Tries without end to reach the service, and notes the results.
fn service() -> String {
    format!(
        "Environment=PATH=/usr/sbin:/usr/bin:/sbin:/bin\n\
         ExecStart=bash -c 'while sleep 0.05; do if echo > /dev/tcp/127.0.0.1/{PORT}; then echo open; \
         else echo refused; fi >> /tmp/result 2> /dev/null; done'\n"
    )
}

/// The results from now on, as soon as there are two: the first may be of a moment before.
fn result(scene: &Scene) -> Result<String> {
    scene.output(&["rm", "-f", "/tmp/result"])?;
    let mut last = String::new();
    wait_until("the unit makes attempts", || {
        let found = scene.run(&["cat", "/tmp/result"])?.stdout;
        last = found.lines().nth(2).unwrap_or_default().to_owned();
        Ok(!last.is_empty())
    })?;
    Ok(last)
}

/// Waits until a text was said so often.
fn await_said(
    process: &mut Process,
    errors: &tempfile::NamedTempFile,
    text: &str,
    times: usize,
) -> Result<()> {
    let said = || std::fs::read_to_string(errors.path()).unwrap_or_default();
    let waited = wait_until("qfence says it", || {
        if let Some(status) = process.wait(std::time::Duration::ZERO)? {
            bail!("it has ended: {status}");
        }
        Ok(said().matches(text).count() >= times)
    });
    waited.with_context(|| format!("{text} {times}: {}", said()))
}

#[test]
fn a_unit_is_fenced_again_each_time_that_it_is_started_anew() -> Result<()> {
    const IN_FORCE: &str = "the fence vm is in force";
    let scene = Scene::new()?;
    let serve = format!(
        "import socket; s = socket.create_server(('127.0.0.1', {PORT}), backlog=1024)\n\
         while True: s.accept()[0].close()"
    );
    scene.output(&["systemd-run", "--unit=host", "python3", "-c", &serve])?;
    let ask = format!("bash -c 'echo > /dev/tcp/127.0.0.1/{PORT}'");
    wait_until("the service listens", || {
        Ok(scene.run(&["sh", "-c", &ask])?.code() == Some(0))
    })?;
    scene.start(&service())?;
    assert_eq!(result(&scene)?, "open", "control");

    let errors = tempfile::NamedTempFile::new()?;
    let mut command = scene.machine.command("sh")?;
    let program = &scene.program;
    let options = format!("--unit {UNIT} --name vm --restart --log none");
    let script = format!("echo $$ > /tmp/pid; exec {program} attach {options}");
    command.args(["-c", &script]);
    command.stderr(errors.reopen()?);
    let mut attach = Process::spawn(command)?;
    await_said(&mut attach, &errors, IN_FORCE, 1)?;
    assert_eq!(result(&scene)?, "refused");
    for round in 1..=2 {
        scene.output(&["systemctl", "restart", UNIT])?;
        await_said(&mut attach, &errors, IN_FORCE, round + 1)?;
        await_said(&mut attach, &errors, "was open for at most ", round)?;
        assert_eq!(result(&scene)?, "refused", "round {round}");
        let fences = scene.fences()?;
        ensure!(
            fences.len() == 1 && fences[0].state == "running",
            "{fences:?}"
        );
        let record = scene.qfence(&["logs", "vm", "--json"])?.stdout;
        ensure!(record.contains("\"kind\":\"open\""), "{record}");
    }

    // While the unit does not run, there is no fence. It need not be the next process that starts.
    scene.output(&["systemctl", "stop", UNIT])?;
    await_said(&mut attach, &errors, "its cgroup is gone", 3)?;
    scene.await_nothing()?;
    scene.output(&[
        "systemctl",
        "start",
        "--no-block",
        "systemd-journald.service",
    ])?;
    scene.output(&["systemctl", "start", UNIT])?;
    await_said(&mut attach, &errors, IN_FORCE, 4)?;
    assert_eq!(result(&scene)?, "refused");

    scene.output(&["systemctl", "stop", UNIT])?;
    await_said(&mut attach, &errors, "its cgroup is gone", 4)?;
    scene.output(&["sh", "-c", "kill $(cat /tmp/pid)"])?;
    let status = attach.wait(HANG)?.context("it does not end")?;
    ensure!(
        status.success(),
        "{status}: {}",
        std::fs::read_to_string(errors.path())?
    );
    scene.await_nothing()?;
    // The control: nothing fences it now.
    scene.output(&["systemctl", "start", UNIT])?;
    assert_eq!(result(&scene)?, "open");
    scene.machine.end()
}

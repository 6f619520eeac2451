//! A fence on a slice, and one that a unit makes for itself, by the files of contrib/.

use anyhow::Result;
use tests::run::wait_until;

use super::{Scene, UNIT};

/// Where a service of the host listens.
const PORT: u16 = 8080;

/// How often a unit is started whose first instruction is an attempt.
const ROUNDS: usize = 1000;

/// How many of these are started by one command.
const AT_ONCE: usize = 200;

/// Boots a machine with qfence where contrib/ names it, a file of contrib/systemd, and a service of the host.
fn scene(contrib: &str, path: &str) -> Result<Scene> {
    let scene = Scene::new()?;
    scene.install(contrib, path)?;
    let serve = format!(
        "import socket; s = socket.create_server(('127.0.0.1', {PORT}), backlog=1024)\n\
         while True: s.accept()[0].close()"
    );
    scene.output(&["systemd-run", "--unit=host", "python3", "-c", &serve])?;
    let ask = format!("bash -c 'echo > /dev/tcp/127.0.0.1/{PORT}'");
    wait_until("the service listens", || {
        Ok(scene.run(&["sh", "-c", &ask])?.code() == Some(0))
    })?;
    Ok(scene)
}

/// The lines of a service that makes one attempt, notes what it came to, and goes on as `then`.
fn attempt(then: &str) -> String {
    format!(
        "Environment=PATH=/usr/sbin:/usr/bin:/sbin:/bin\n\
         ExecStart=bash -c 'if echo > /dev/tcp/127.0.0.1/{PORT}; then echo open; else echo refused; fi \
         >> /tmp/result 2> /dev/null; {then}'\n"
    )
}

/// What the attempts came to, in order.
fn results(scene: &Scene) -> Result<Vec<String>> {
    let found = scene.run(&["cat", "/tmp/result"])?.stdout;
    Ok(found.lines().map(str::to_owned).collect())
}

/// Waits for a number of results.
fn await_results(scene: &Scene, count: usize) -> Result<Vec<String>> {
    let mut found = Vec::new();
    let result = wait_until("the attempts are made", || {
        found = results(scene)?;
        Ok(found.len() >= count)
    });
    result.map_err(|error| error.context(scene.journal()))?;
    Ok(found)
}

#[test]
fn a_slice_is_fenced_before_its_units_start_and_as_long_as_they_run() -> Result<()> {
    let scene = scene("qfence@.service", "/etc/systemd/system/qfence@.service")?;
    scene.machine.write(
        "/etc/qfence/slices.d/vms",
        "OPTIONS=--profile internet-only --allow udp:127.0.0.1:9\n",
    )?;
    // The control: without its slice the unit reaches the host.
    scene.start(&format!("Type=oneshot\n{}", attempt("true")))?;
    assert_eq!(await_results(&scene, 1)?, ["open"]);

    let fenced = "[Unit]\nRequires=qfence@vms.service\nAfter=qfence@vms.service\n[Service]\nSlice=qfence-vms.slice\n";
    scene.write_unit(&format!("{fenced}Type=oneshot\n{}", attempt("true")))?;
    let rounds = format!(
        "for i in $(seq {AT_ONCE}); do systemctl start {UNIT} || exit; systemctl reset-failed; done"
    );
    for _ in 0..ROUNDS / AT_ONCE {
        scene.output(&["sh", "-c", &rounds])?;
    }
    let found = results(&scene)?;
    assert_eq!(found.len(), ROUNDS + 1);
    assert!(found[1..].iter().all(|one| one == "refused"), "{found:?}");
    let shown = scene.output(&[&scene.program, "policy", "show", "vms"])?;
    assert!(shown.contains("udp:127.0.0.1:9"), "{shown}");

    // The fence outlives its supervisor, and a systemd that is executed anew.
    scene.write_unit(&format!("{fenced}{}", attempt("exec sleep 1000")))?;
    scene.output(&["systemctl", "daemon-reexec"])?;
    scene.output(&["systemctl", "start", UNIT])?;
    assert_eq!(await_results(&scene, ROUNDS + 2)?[ROUNDS + 1], "refused");
    assert_eq!(scene.fences()?[0].state, "running");
    let kill = ["systemctl", "kill", "--signal=KILL", "qfence@vms.service"];
    scene.output(&kill)?;
    wait_until("it is an orphan", || {
        Ok(scene.fences()?[0].state == "orphaned")
    })?;
    // A supervisor that is started anew takes its place. What runs in the slice is fenced all the time.
    scene.output(&["systemctl", "reset-failed"])?;
    scene.output(&["systemctl", "start", "qfence@vms.service"])?;
    assert_eq!(scene.fences()?.len(), 1);
    assert_eq!(scene.fences()?[0].state, "running");
    let journal = scene.output(&["journalctl", "--no-pager", "-u", "qfence@vms.service"])?;
    assert!(
        journal.contains("has replaced the orphaned fence vms"),
        "{journal}"
    );
    let kept = ["find", "/sys/fs/bpf", "-name", "*-replaced"];
    assert_eq!(scene.output(&kept)?, "");
    scene.output(&kill)?;
    wait_until("it is an orphan again", || {
        Ok(scene.fences()?[0].state == "orphaned")
    })?;
    // What is started in the slice without the dependency is fenced as well.
    let other = [
        "systemd-run",
        "--wait",
        "--slice=qfence-vms.slice",
        "bash",
        "-c",
    ];
    let ask = format!("echo > /dev/tcp/127.0.0.1/{PORT}");
    let refused = scene.run(&[&other[..], &[&ask]].concat())?;
    assert_eq!(refused.code(), Some(1), "{refused:?}");
    let place = scene.fences()?[0].place.clone();
    assert_eq!(place.as_deref(), Some("qfence.slice/qfence-vms.slice"));

    // The unit ends before the fence is released.
    scene.output(&["systemctl", "stop", UNIT])?;
    scene.output(&[&scene.program, "rm", "vms"])?;
    scene.output(&["systemctl", "reset-failed"])?;
    scene.output(&["systemctl", "start", UNIT])?;
    assert_eq!(await_results(&scene, ROUNDS + 3)?[ROUNDS + 2], "refused");
    scene.output(&["systemctl", "stop", "qfence@vms.service"])?;
    let active = scene.run(&["systemctl", "is-active", UNIT])?;
    assert_eq!(active.stdout, "inactive\n");
    scene.await_nothing()?;
    scene.machine.end()
}

#[test]
fn a_unit_can_fence_itself_before_its_first_instruction() -> Result<()> {
    let scene = scene(
        "qfence-unit.conf",
        "/etc/systemd/system/vm.service.d/qfence.conf",
    )?;
    scene.start(&attempt("exec sleep 1000"))?;
    assert_eq!(await_results(&scene, 1)?, ["refused"]);
    let fence = &scene.fences()?[0];
    assert_eq!(fence.state, "detached");
    assert_eq!(fence.place.as_deref(), Some("system.slice/vm.service"));
    scene.output(&["systemctl", "restart", UNIT])?;
    assert_eq!(await_results(&scene, 2)?, ["refused", "refused"]);
    scene.output(&["systemctl", "stop", UNIT])?;
    scene.await_nothing()?;

    // If the fence cannot be made, the unit does not start.
    scene.output(&["systemd-run", "--unit=other", "sleep", "1000"])?;
    let attach = ["attach", "--unit", "other", "--detach", "--name", "vm"];
    let taken = scene.qfence(&attach)?;
    assert_eq!(taken.code(), Some(0), "{taken:?}");
    let start = scene.run(&["systemctl", "start", UNIT])?;
    assert_ne!(start.code(), Some(0), "{start:?}");
    assert_eq!(results(&scene)?.len(), 2);
    // The control.
    scene.output(&["rm", "/etc/systemd/system/vm.service.d/qfence.conf"])?;
    scene.start(&attempt("exec sleep 1000"))?;
    assert_eq!(await_results(&scene, 3)?[2], "open");
    scene.machine.end()
}

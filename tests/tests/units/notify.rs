//! Notifications, watchdogs and sockets of systemd work through `exec`.

use anyhow::Result;
use tests::{run::wait_until, systemd::USER};

use super::{Scene, UNIT};

/// A property of the unit.
fn property(scene: &Scene, name: &str) -> Result<String> {
    let show = ["systemctl", "show", "--value", "--property", name, UNIT];
    Ok(scene.output(&show)?.trim().to_owned())
}

#[test]
fn a_unit_is_started_when_its_command_says_so() -> Result<()> {
    let scene = Scene::new()?;
    scene.output(&["install", "-d", "-o", USER, "/tmp/results"])?;
    // For systemd, a carriage return ends a line too.
    let show = [
        "systemctl",
        "show",
        "--value",
        "--property",
        "MainPID",
        "dbus.service",
    ];
    let other = scene.output(&show)?;
    let forged = format!("STATUS=x\rMAINPID={}\nWATCHDOG=1", other.trim());
    scene.machine.write("/tmp/results/forged", &forged)?;
    let command = "sh -c 'until test -e /tmp/results/go; do sleep 0.1; done; systemd-notify --pid=1 --ready; \
                   systemd-notify \"$(cat /tmp/results/forged)\"; systemd-notify --status=\"sent $?\"; exec sleep 1000'";
    for options in ["", "--keep", "--strict=sockets,rights"] {
        let exec = scene.exec(options, command);
        scene.write_unit(&format!("Type=notify\nTimeoutStartSec=120\n{exec}"))?;
        scene.output(&["systemctl", "start", "--no-block", UNIT])?;
        scene.await_fence()?;
        assert_eq!(property(&scene, "ActiveState")?, "activating", "{options}");
        let main = property(&scene, "MainPID")?;
        scene.output(&["touch", "/tmp/results/go"])?;
        let active = wait_until("the unit is active", || {
            Ok(property(&scene, "ActiveState")? == "active")
        });
        active.map_err(|error| error.context(scene.journal()))?;
        wait_until("the sender has ended", || {
            Ok(property(&scene, "StatusText")? == "sent 0")
        })?;
        // The command cannot make another process the main one.
        assert_eq!(property(&scene, "MainPID")?, main, "{options}");
        scene.output(&["systemctl", "stop", UNIT])?;
        scene.await_nothing()?;
        assert_eq!(
            scene.output(&["find", "/run/qfence.notify", "-type", "s"])?,
            ""
        );
        scene.output(&["rm", "/tmp/results/go"])?;
    }
    scene.machine.end()
}

#[test]
fn a_watchdog_hears_the_command_and_nobody_else() -> Result<()> {
    let scene = Scene::new()?;
    let pings = "sh -c 'test $WATCHDOG_PID = $$ && systemd-notify --ready; \
                 while :; do systemd-notify WATCHDOG=1; sleep 0.2; done'";
    scene.start(&format!(
        "Type=notify\nWatchdogSec=600\n{}",
        scene.exec("--strict=rights", pings)
    ))?;
    let heard = || property(&scene, "WatchdogTimestampMonotonic");
    let first = heard()?;
    wait_until("it is heard", || Ok(heard()? != first))?;
    // Without its directory another user cannot find the socket, and may not send to it.
    let sockets = scene.output(&["find", "/run/qfence.notify", "-type", "s"])?;
    let send = format!(
        "import socket; s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); s.sendto(b'STATUS=x', '{}')",
        sockets.trim()
    );
    let other = [
        "setpriv",
        "--reuid",
        "65534",
        "--clear-groups",
        "python3",
        "-c",
        &send,
    ];
    let refused = scene.run(&other)?;
    assert!(refused.stderr.contains("PermissionError"), "{refused:?}");
    let own = [
        "setpriv",
        "--reuid",
        "59123",
        "--clear-groups",
        "python3",
        "-c",
        &send,
    ];
    scene.output(&own)?;
    scene.output(&[
        "systemctl",
        "kill",
        "--kill-who=main",
        "--signal=KILL",
        UNIT,
    ])?;
    scene.await_nothing()?;
    assert_eq!(
        scene.output(&["find", "/run/qfence.notify", "-type", "s"])?,
        ""
    );
    scene.output(&["systemctl", "reset-failed", UNIT])?;

    let silent = "sh -c 'systemd-notify --ready; exec sleep 1000'";
    let exec = scene.exec("", silent);
    scene.write_unit(&format!(
        "Type=notify\nWatchdogSec=1\nTimeoutStopSec=5\n{exec}"
    ))?;
    scene.output(&["systemctl", "start", "--no-block", UNIT])?;
    wait_until("the silent one is ended", || {
        Ok(property(&scene, "Result")? == "watchdog"
            && property(&scene, "ActiveState")? == "failed")
    })?;
    scene.await_nothing()?;
    scene.machine.end()
}

#[test]
fn sockets_of_a_socket_unit_are_the_commands() -> Result<()> {
    let scene = Scene::new()?;
    scene.output(&["install", "-d", "-o", USER, "/tmp/results"])?;
    scene.machine.write(
        "/etc/systemd/system/vm.socket",
        "[Socket]\nListenStream=127.0.0.1:8080\n",
    )?;
    let serve = "python3 -c \"import os, socket; \
                 assert os.environ['LISTEN_PID'] == str(os.getpid()) and os.environ['LISTEN_FDS'] == '1'; \
                 s = socket.socket(fileno=3); \
                 [c.sendall(b'served') or c.close() for c in iter(lambda: s.accept()[0], None)]\"";
    scene.write_unit(&scene.exec("--preserve-fds 1", serve))?;
    scene.output(&["systemctl", "start", "vm.socket"])?;
    let ask =
        "import socket; print(socket.create_connection(('127.0.0.1', 8080)).recv(99).decode())";
    let answer = scene.output(&["python3", "-c", ask])?;
    assert_eq!(answer, "served\n", "{}", scene.journal());
    scene.output(&["systemctl", "stop", "vm.socket", UNIT])?;
    scene.await_nothing()?;
    scene.machine.end()
}

//! The cgroup of the fence is beneath that of the unit, wherever only root can move processes there.

use anyhow::Result;
use tests::{run::wait_until, systemd::USER};

use super::{CGROUP, Scene, UNIT};

/// A datagram to a port of this host, and whether the kernel took it.
const SEND: &str = "bash -c 'echo x > /dev/udp/127.0.0.1/9 && echo sent > %t/result || echo refused > %t/result; sleep 1000'";

/// What the command wrote.
fn result(scene: &Scene) -> Result<String> {
    let mut found = String::new();
    wait_until("the command has sent", || {
        found = scene.run(&["cat", "/tmp/results/result"])?.stdout;
        Ok(!found.is_empty())
    })?;
    scene.output(&["rm", "/tmp/results/result"])?;
    Ok(found.trim().to_owned())
}

#[test]
fn rules_of_the_unit_apply_in_the_fence() -> Result<()> {
    let scene = Scene::new()?;
    scene.output(&["install", "-d", "-o", USER, "/tmp/results"])?;
    let send = SEND.replace("%t", "/tmp/results");
    for (options, denied, place, expected) in [
        ("", "", Some("system.slice/vm.service/qfence/vm"), "sent"),
        (
            "",
            "127.0.0.0/8",
            Some("system.slice/vm.service/qfence/vm"),
            "refused",
        ),
        // The control: it is the unit's rule that refuses.
        ("--cgroup-parent top", "127.0.0.0/8", None, "sent"),
    ] {
        let exec = scene.exec(&format!("{options} --allow udp:127.0.0.1:9"), &send);
        scene.start(&format!("IPAddressDeny={denied}\n{exec}"))?;
        let fence = scene.await_fence()?;
        assert_eq!(fence.place.as_deref(), place, "{options} {denied}");
        assert_eq!(fence.state, "running");
        assert_eq!(
            result(&scene)?,
            expected,
            "{options} {denied} {}",
            scene.journal()
        );
        scene.output(&["systemctl", "stop", UNIT])?;
        scene.await_nothing()?;
    }
    scene.machine.end()
}

#[test]
fn a_unit_that_ends_in_any_way_leaves_nothing() -> Result<()> {
    let scene = Scene::new()?;
    let stubborn = "sh -c \"trap '' TERM; setsid sleep 1000 & while :; do sleep 0.1; done\"";
    let stop = ["systemctl", "stop", UNIT];
    let main = [
        "systemctl",
        "kill",
        "--kill-who=main",
        "--signal=KILL",
        UNIT,
    ];
    let all = ["systemctl", "kill", "--signal=KILL", UNIT];
    for (mode, end) in [
        ("control-group", &stop[..]),
        ("mixed", &stop),
        ("control-group", &main),
        ("process", &main),
        ("control-group", &all),
    ] {
        let exec = scene.exec("", stubborn);
        scene.start(&format!("KillMode={mode}\nTimeoutStopSec=1\n{exec}"))?;
        scene.await_fence()?;
        scene.output(end)?;
        scene.await_nothing()?;
        let _failed = scene.run(&["systemctl", "reset-failed", UNIT])?;
    }
    // A command that ends when it is asked to. It is the supervisor that is asked.
    for mode in ["process", "mixed"] {
        let exec = scene.exec("", "sh -c \"setsid sleep 1000 & exec sleep 1000\"");
        scene.start(&format!("KillMode={mode}\n{exec}"))?;
        scene.await_fence()?;
        scene.output(&stop)?;
        scene.await_nothing()?;
    }
    scene.machine.end()
}

#[test]
fn the_fence_stays_while_systemd_is_reloaded_or_executed_anew() -> Result<()> {
    let scene = Scene::new()?;
    scene.start(&scene.exec("", "sleep 1000"))?;
    let before = scene.await_fence()?;
    for verb in ["daemon-reload", "daemon-reexec"] {
        scene.output(&["systemctl", verb])?;
        wait_until("systemd answers", || {
            Ok(scene.run(&["systemctl", "is-active", UNIT])?.stdout == "active\n")
        })?;
        let after = scene.await_fence()?;
        assert_eq!(after.state, "running");
        assert_eq!(
            (after.pids, after.place),
            (before.pids.clone(), before.place.clone())
        );
    }
    // A policy is changed, and the fence ends, as at the top.
    let set = scene.qfence(&["set", "vm", "--allow", "tcp:127.0.0.1:9"])?;
    assert_eq!(set.code(), Some(0), "{set:?}");
    let inside = scene.run(&[
        "sh",
        "-c",
        &format!(
            "echo 0 > /sys/fs/cgroup{CGROUP}/qfence/vm/cgroup.procs && exec {} exec -- true",
            scene.program
        ),
    ])?;
    assert!(
        inside.stderr.contains("in the fence \"vm\" already"),
        "{inside:?}"
    );
    let removed = scene.qfence(&["rm", "vm"])?;
    assert_eq!(removed.code(), Some(0), "{removed:?}");
    scene.await_nothing()?;
    scene.machine.end()
}

#[test]
fn where_a_user_could_move_processes_it_is_at_the_top() -> Result<()> {
    let scene = Scene::new()?;
    let exec = scene.exec("", "sleep 1000");
    scene.start(&format!("User={USER}\nDelegate=yes\n{exec}"))?;
    assert_eq!(scene.await_fence()?.place, None);
    let journal = scene.journal();
    let lost = "IPAddressDeny= and KillMode= of the unit vm.service do not apply to the command";
    assert!(journal.contains(lost), "{journal}");
    assert!(journal.contains("is delegated to the user"), "{journal}");
    scene.output(&["systemctl", "stop", UNIT])?;
    scene.await_nothing()?;
    scene.machine.end()
}

#[test]
fn a_parent_can_be_named_if_it_is_fit() -> Result<()> {
    let scene = Scene::new()?;
    let run = [
        "systemd-run",
        "--unit=other",
        "--slice=vms.slice",
        "sleep",
        "1000",
    ];
    scene.output(&run)?;
    let exec = |parent: &str, command: &[&str]| {
        let words = ["exec", "--log", "none", "--user", USER, "--name", "named"];
        scene.qfence(&[&words[..], &["--cgroup-parent", parent, "--"], command].concat())
    };
    let own = ["sed", "-n", "s/^0:://p", "/proc/self/cgroup"];
    for parent in ["vms.slice", "/vms.slice", "/sys/fs/cgroup/vms.slice"] {
        let ended = exec(parent, &own)?;
        assert_eq!(ended.stdout, "/vms.slice/qfence/named\n", "{ended:?}");
    }
    assert_eq!(exec("top", &own)?.stdout, "/qfence/named\n");
    let attach = ["attach", "--cgroup", "vms.slice", "--detach", "--name", "f"];
    let attached = scene.qfence(&attach)?;
    assert_eq!(attached.code(), Some(0), "{attached:?}");
    for (parent, why) in [
        ("/", "it is the root"),
        ("none.slice", "cannot find the cgroup"),
        ("vms.slice/other.service", "the fence \"f\" is attached"),
        ("/qfence", "it belongs to a fence"),
        (
            "/user.slice/user-59123.slice/user@59123.service",
            "is delegated to the user",
        ),
    ] {
        let refused = exec(parent, &own)?;
        assert_eq!(refused.code(), Some(125), "{parent}: {refused:?}");
        assert!(refused.stderr.contains(why), "{parent}: {refused:?}");
    }
    scene.machine.end()
}

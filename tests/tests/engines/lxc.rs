//! LXC calls the hook of contrib/lxc for its containers.

use std::fs;

use anyhow::{Context as _, Result};
use tests::{
    dns::Dns,
    engines::{ADDRESS, GATEWAY, PROBE, Room},
    probe::{self, ProbeResult, read_lines},
    run::{Ended, wait_until},
    world::{HOST_V4, SERVER_V4},
};

use super::{FOR_EVER, PORT, Scene, assert_fenced, assert_open};

/// The lines of a configuration that name the hook.
pub(super) const HOOK: &str =
    "lxc.hook.version = 1\nlxc.hook.start-host = /usr/local/bin/qfence-lxc\n";

/// The lines of a configuration by which root in the container is a user without rights on the host.
const IDS: &str = "lxc.idmap = u 0 100000 65536\nlxc.idmap = g 0 100000 65536\n";

/// The port of a service in the container, and that by which it is published.
const INSIDE: u16 = 9000;
const PUBLISHED: u16 = 8081;

/// Publishes the ports of the service on the host.
const PUBLISH: &str = "for protocol in tcp udp; do
    iptables-nft -t nat -A PREROUTING -p $protocol --dport 8081 ! -i lxcbr0 -j DNAT --to 10.0.3.15:9000
done";

pub(super) fn scene() -> Result<Scene> {
    let scene = Scene::with(Room::with_lxc)?;
    let hook = include_str!("../../../contrib/lxc/qfence-lxc");
    scene.room.write("/usr/local/bin/qfence-lxc", hook)?;
    scene
        .room
        .output(&["chmod", "755", "/usr/local/bin/qfence-lxc"])?;
    Ok(scene)
}

/// Runs the container in the foreground until its only command ends, which makes the attempts.
fn run(scene: &Scene) -> Result<Ended> {
    let attempts = Scene::attempts(GATEWAY).join(" ");
    let script = format!("{PROBE} {attempts} >/result");
    let start = [
        "lxc-start",
        "--foreground",
        "--name",
        "box",
        "--logfile",
        "/run/lxc.log",
        "--logpriority",
        "DEBUG",
    ];
    let mut ended = scene
        .room
        .run(&[&start[..], &["--", "/bin/sh", "-c", &script]].concat())?;
    let result = scene.room.path_in_lxc("/result");
    ended.stdout = fs::read_to_string(&result).unwrap_or_default();
    let _ = fs::remove_file(result);
    Ok(ended)
}

/// What LXC wrote to its log.
pub(super) fn log(scene: &Scene) -> String {
    fs::read_to_string(scene.room.path("/run/lxc.log")).unwrap_or_default()
}

/// Starts the container in the background.
pub(super) fn start(scene: &Scene, command: &[&str]) -> Result<()> {
    let start = [
        "lxc-start",
        "--name",
        "box",
        "--logfile",
        "/run/lxc.log",
        "--logpriority",
        "DEBUG",
        "--",
    ];
    let started = scene.room.output(&[&start, command].concat());
    started.with_context(|| log(scene))?;
    Ok(())
}

/// Makes the attempts in the container that runs.
fn probe_in(scene: &Scene) -> Result<Ended> {
    let attempts = Scene::attempts(GATEWAY);
    let attempts: Vec<_> = attempts.iter().map(String::as_str).collect();
    let attach = ["lxc-attach", "--name", "box", "--", PROBE];
    scene.room.run(&[&attach, &attempts[..]].concat())
}

/// The container restarts itself.
fn reboot(scene: &Scene) -> Result<()> {
    let first = || {
        let info = ["lxc-info", "--name", "box", "--pid", "--no-humanize"];
        scene.room.output(&info)
    };
    let before = first()?;
    let reboot = [
        "lxc-attach",
        "--name",
        "box",
        "--",
        "/bin/busybox",
        "reboot",
        "-f",
    ];
    // It ends with the container.
    scene.room.run(&reboot)?;
    let again = wait_until("it runs again", || {
        let now = first()?;
        let state = ["lxc-info", "--name", "box", "--state", "--no-humanize"];
        let runs = scene.room.output(&state)?.trim() == "RUNNING";
        Ok(runs && !now.trim().is_empty() && now != before)
    });
    again.with_context(|| log(scene))
}

/// Makes attempts in the container that runs.
fn attempt(scene: &Scene, attempts: &[&str]) -> Result<Vec<ProbeResult>> {
    let attach = ["lxc-attach", "--name", "box", "--", PROBE];
    let ended = scene.room.run(&[&attach, attempts].concat())?;
    read_lines(&ended.stdout).with_context(|| format!("{ended:?}"))
}

#[test]
fn a_container_with_the_hook_is_fenced_from_its_first_instruction() -> Result<()> {
    let scene = scene()?;
    scene.room.configure_lxc("")?;
    let ended = run(&scene)?;
    assert_open(&ended).with_context(|| log(&scene))?;
    assert_eq!(scene.arrived(), (4, 2), "control");

    scene.room.configure_lxc(HOOK)?;
    let ended = run(&scene)?;
    assert_fenced(&ended).with_context(|| log(&scene))?;
    assert_eq!(scene.arrived(), (4, 4));
    scene.assert_nothing_left()?;

    // A hook that fails.
    let hook = include_str!("../../../contrib/lxc/qfence-lxc");
    let broken = hook.replace("--profile host", "--profile nonsense");
    assert_ne!(broken, hook);
    scene.room.write("/usr/local/bin/qfence-lxc", &broken)?;
    let ended = run(&scene)?;
    assert_ne!(ended.code(), Some(0), "{ended:?}");
    assert_eq!(ended.stdout, "", "{ended:?}");
    assert!(log(&scene).contains("nonsense"), "{}", log(&scene));
    assert_eq!(scene.arrived(), (4, 4));
    scene.assert_nothing_left()
}

#[test]
fn a_container_gets_its_fence_at_each_start() -> Result<()> {
    let scene = scene()?;
    scene.room.configure_lxc(HOOK)?;
    for round in ["started", "started again"] {
        start(&scene, &FOR_EVER)?;
        let fences = scene.fences()?;
        for words in ["\"box\"", "container box (lxc)", "\"lxc.payload.box\""] {
            assert!(fences.contains(words), "{round}: {words}: {fences}");
        }
        assert_fenced(&probe_in(&scene)?)?;
        scene.room.output(&["lxc-freeze", "--name", "box"])?;
        scene.room.output(&["lxc-unfreeze", "--name", "box"])?;
        assert_fenced(&probe_in(&scene)?)?;
        reboot(&scene)?;
        assert_fenced(&probe_in(&scene)?)?;
        scene
            .room
            .output(&["lxc-stop", "--kill", "--name", "box"])?;
        scene.assert_nothing_left()?;
    }
    Ok(())
}

#[test]
fn ports_answer_names_are_resolved_and_services_are_refused() -> Result<()> {
    let scene = scene()?;
    let _dns = Dns::start(
        &scene.world.host,
        GATEWAY.parse()?,
        &[("www.example", SERVER_V4)],
    )?;
    scene.room.configure_lxc(HOOK)?;
    scene.room.output(&["sh", "-c", PUBLISH])?;
    let services = ["tcp", "udp"].map(|protocol| format!("{protocol}/{INSIDE}"));
    start(&scene, &[PROBE, "--serve", &services[0], &services[1]])?;
    let from_others = (&scene.world.internet, HOST_V4, PUBLISHED);
    let from_host = (&scene.world.host, ADDRESS.parse()?, INSIDE);
    for (from, address, port) in [from_host, from_others] {
        for protocol in ["tcp", "udp"] {
            let attempt = format!("{protocol}/{address}/{port}");
            wait_until(&format!("{attempt} answers"), || {
                let results = probe::run(from, &["--timeout-ms", "1000", &attempt])?;
                Ok(results
                    .iter()
                    .all(|result| result.says("hello from the probe")))
            })?;
        }
    }
    let resolved = attempt(&scene, &[&format!("dns/{GATEWAY}/www.example")])?;
    assert!(resolved[0].is_reached(), "{resolved:?}");
    let refused = [
        format!("tcp/{ADDRESS}/{INSIDE}"),
        format!("udp/127.0.0.1/{INSIDE}"),
        format!("tcp/{GATEWAY}/{PORT}"),
    ];
    for result in attempt(&scene, &refused.each_ref().map(String::as_str))? {
        assert!(result.failed_with("ECONNREFUSED"), "{result:?}");
    }
    scene.room.output(&["qfence-user", "rm", "box"])?;
    // The control.
    for result in attempt(&scene, &refused.each_ref().map(String::as_str))? {
        assert!(result.is_reached(), "control: {result:?}");
    }
    scene
        .room
        .output(&["lxc-stop", "--kill", "--name", "box"])?;
    scene.assert_nothing_left()
}

#[test]
fn a_container_whose_root_is_another_user_is_fenced_too() -> Result<()> {
    let scene = scene()?;
    scene.room.own_lxc("100000")?;
    scene.room.configure_lxc(IDS)?;
    let ended = run(&scene)?;
    assert_open(&ended).with_context(|| log(&scene))?;
    assert_eq!(scene.arrived(), (4, 2), "control");

    scene.room.configure_lxc(&format!("{IDS}{HOOK}"))?;
    let ended = run(&scene)?;
    assert_fenced(&ended).with_context(|| log(&scene))?;
    assert_eq!(scene.arrived(), (4, 4));
    scene.assert_nothing_left()
}

//! containerd asks the plugin about each container of a pod, on a node without a cluster.

mod policies;

use std::{
    fs::{self, File},
    io,
    process::Stdio,
    thread::sleep,
    time::Duration,
};

use anyhow::{Context as _, Result};
use qfence_user::probe::ProbeResult;
use tests::{
    engines::{NRI_SOCKET, PODS_GATEWAY, PROBE, Pod, Room},
    probe::read_lines,
    process::Process,
    run::wait_until,
};

use super::{FOR_EVER, Scene, SystemLog};

const PLUGIN: &str = "/opt/nri/plugins/10-qfence";

const FENCED: (&str, &str) = ("qfence", "on");

fn scene() -> Result<Scene> {
    Scene::with(Room::with_cri)
}

/// Has containerd start the plugin of contrib/.
fn install(scene: &Scene, plugin: &str) -> Result<()> {
    scene.room.write(PLUGIN, plugin)?;
    scene.room.output(&["chmod", "755", PLUGIN]).map(drop)
}

fn plugin() -> &'static str {
    include_str!("../../../contrib/nri/10-qfence")
}

/// The attempts of a container that does nothing else.
fn probe(scene: &Scene, pod: &Pod, name: &str) -> Result<Vec<ProbeResult>> {
    let attempts = Scene::attempts(PODS_GATEWAY);
    let attempts = attempts.iter().map(String::as_str);
    let command: Vec<_> = [PROBE].into_iter().chain(attempts).collect();
    let said = scene.room.run_container(pod, name, &command)?;
    read_lines(&said).context(said)
}

/// Starts a container that waits.
fn start(scene: &Scene, pod: &Pod, name: &str) -> Result<String> {
    let id = scene.room.create_container(pod, name, &FOR_EVER)?;
    let id = id.map_err(anyhow::Error::msg)?;
    let started = scene.room.start_container(&id)?;
    started.map_err(anyhow::Error::msg)?;
    Ok(id)
}

/// The attempts in a container that runs.
fn probe_in(scene: &Scene, id: &str) -> Result<Vec<ProbeResult>> {
    let attempts = Scene::attempts(PODS_GATEWAY);
    let attempts = attempts.iter().map(String::as_str);
    let command: Vec<_> = [PROBE].into_iter().chain(attempts).collect();
    read_lines(&scene.room.exec(id, &command)?)
}

fn assert_open(results: &[ProbeResult]) {
    assert_eq!(results.len(), 6, "{results:?}");
    for result in results {
        assert!(result.is_reached(), "control: {result:?}");
    }
}

fn assert_fenced(results: &[ProbeResult]) {
    assert_eq!(results.len(), 6, "{results:?}");
    for refused in &results[..4] {
        assert!(refused.failed_with("ECONNREFUSED"), "{refused:?}");
    }
    for reached in &results[4..] {
        assert!(reached.says("hello from"), "{reached:?}");
    }
}

#[test]
fn a_pod_with_the_annotation_is_fenced_from_its_first_instruction() -> Result<()> {
    let scene = scene()?;
    install(&scene, plugin())?;
    let _containerd = scene.room.start_node()?;

    let open = scene.room.run_pod("open", &[("other", "x")])?;
    assert_open(&probe(&scene, &open, "main")?);
    let arrived = scene.arrived();
    assert_eq!(arrived, (4, 2), "control");

    let pod = scene.room.run_pod("fenced", &[FENCED])?;
    for container in ["first", "second"] {
        let before = scene.arrived();
        assert_fenced(&probe(&scene, &pod, container)?);
        assert_eq!(scene.arrived(), (before.0, before.1 + 2), "{container}");
        wait_until("the fence has ended with its container", || {
            Ok(scene.fences()?.trim() == "[]")
        })?;
    }
    let id = start(&scene, &pod, "third")?;
    let fences = scene.fences()?;
    assert!(fences.contains(&id[..12]), "{fences}");

    // A rule of the annotations, beside those of the plugin.
    let denied = scene
        .room
        .run_pod("denied", &[("qfence.deny", "udp:any")])?;
    let results = probe(&scene, &denied, "main")?;
    assert!(results[4].says("hello from"), "{results:?}");
    assert!(results[5].failed_with("ECONNREFUSED"), "{results:?}");

    for pod in [open, pod, denied] {
        scene.room.remove_pod(&pod)?;
    }
    scene.assert_nothing_left()
}

#[test]
fn a_container_that_cannot_be_fenced_is_not_made_or_does_not_start() -> Result<()> {
    let scene = scene()?;
    let broken = plugin().replace("--profile host", "--profile nonsense");
    assert_ne!(broken, plugin());
    install(&scene, &broken)?;
    let _containerd = scene.room.start_node()?;
    let attempt = format!("tcp/{PODS_GATEWAY}/{}", super::PORT);
    let command = [PROBE, &attempt];

    for (name, annotation, reason) in [
        ("off", ("qfence", "off"), "turn the fence off"),
        ("unknown", ("qfence.alow", "any"), "no annotation"),
        ("wide", ("qfence.allow", "any"), "widens"),
        ("named", ("qfence.name", "web"), "could take a name"),
    ] {
        let pod = scene.room.run_pod(name, &[annotation])?;
        let refused = scene.room.create_container(&pod, "main", &command)?;
        let refused = refused.expect_err("it is refused");
        assert!(refused.contains(reason), "{refused}");
    }
    let pod = scene.room.run_pod("broken", &[FENCED])?;
    let id = scene.room.create_container(&pod, "main", &command)?;
    let id = id.map_err(anyhow::Error::msg)?;
    let refused = scene.room.start_container(&id)?;
    let refused = refused.expect_err("the hook fails");
    assert!(refused.contains("nonsense"), "{refused}");
    assert_eq!(scene.arrived(), (0, 0));

    let open = scene.room.run_pod("open", &[])?;
    scene.room.run_container(&open, "main", &command)?;
    assert_eq!(scene.arrived(), (1, 0), "control");
    scene.assert_nothing_left()
}

/// Starts a plugin that connects itself.
fn connect(scene: &Scene, index: &str) -> Result<Process> {
    let command = ["nri-plugin", "--socket", NRI_SOCKET, "--index", index];
    scene
        .room
        .start_qfence(&[&command[..], &["--profile", "host"]].concat())
}

/// Waits until the plugin says that it has fenced a container that runs already.
fn await_late(scene: &Scene, container: &str) -> Result<()> {
    let line = format!("{container} has run without its fence until now");
    let said = wait_until(&line, || Ok(scene.room.log_of_qfence().contains(&line)));
    said.with_context(|| scene.room.log_of_qfence())
}

#[test]
fn what_was_made_without_the_plugin_does_not_start_and_what_runs_is_fenced_late() -> Result<()> {
    let scene = scene()?;
    let _containerd = scene.room.start_node()?;
    let pod = scene.room.run_pod("early", &[FENCED])?;
    // Without the plugin the annotation has no effect.
    let running = start(&scene, &pod, "running")?;
    assert_open(&probe_in(&scene, &running)?);
    let made = scene.room.create_container(&pod, "made", &FOR_EVER)?;
    let made = made.map_err(anyhow::Error::msg)?;
    let other = scene.room.run_pod("other", &[])?;
    let unasked = start(&scene, &other, "main")?;

    let _plugin = connect(&scene, "10")?;
    await_late(&scene, "the container running of the pod tests/early")?;
    assert_fenced(&probe_in(&scene, &running)?);
    assert_open(&probe_in(&scene, &unasked)?);
    let refused = scene.room.start_container(&made)?;
    let refused = refused.expect_err("it has no fence");
    assert!(refused.contains("has no fence"), "{refused}");

    // containerd goes on without a plugin that was killed. The next one finds what was made meanwhile.
    scene.room.kill_qfence()?;
    let running = start(&scene, &pod, "meanwhile")?;
    assert_open(&probe_in(&scene, &running)?);
    let _plugin = connect(&scene, "10")?;
    await_late(&scene, "the container meanwhile of the pod tests/early")?;
    assert_fenced(&probe_in(&scene, &running)?);
    Ok(())
}

/// Both plugins are told of the same containers at the same time.
#[test]
fn two_plugins_fence_late_what_runs_and_none_says_that_it_could_not() -> Result<()> {
    let scene = scene()?;
    let containerd = scene.room.start_node()?;
    let pod = scene.room.run_pod("early", &[FENCED])?;
    let mut running = Vec::new();
    for name in ["one", "two", "three"] {
        running.push(start(&scene, &pod, name)?);
    }
    assert_open(&probe_in(&scene, &running[0])?);
    scene.room.kill("containerd")?;
    drop(containerd);
    let logs = ["10", "90"].map(|index| scene.room.path(&format!("/run/plugin-{index}.log")));
    let mut plugins = Vec::new();
    for (index, log) in ["10", "90"].iter().zip(&logs) {
        let mut plugin = scene.room.command("qfence-user")?;
        plugin.args(["nri-plugin", "--socket", NRI_SOCKET, "--index", index]);
        plugin
            .args(["--profile", "host"])
            .stderr(File::create(log)?);
        plugins.push(Process::spawn(plugin)?);
    }
    let _containerd = scene.room.start_node()?;
    let said = || -> Result<String> {
        let texts = logs.iter().map(fs::read_to_string);
        Ok(texts.collect::<io::Result<String>>()?)
    };
    let late = "has run without its fence";
    wait_until("all are fenced", || Ok(said()?.matches(late).count() == 3))?;
    for id in &running {
        assert_fenced(&probe_in(&scene, id)?);
    }
    // The plugin that comes second to the last container may still be at it.
    sleep(Duration::from_secs(2));
    let said = said()?;
    assert_eq!(said.matches(late).count(), 3, "{said}");
    assert_eq!(said.matches("is registered").count(), 2, "{said}");
    assert!(!said.contains("NOT FENCED"), "{said}");
    Ok(())
}

/// containerd waits two seconds for an answer, and then goes on without the plugin.
#[test]
fn a_plugin_that_was_stopped_fences_late() -> Result<()> {
    let scene = scene()?;
    let _containerd = scene.room.start_node()?;
    let _plugin = connect(&scene, "10")?;
    wait_until("the plugin is registered", || {
        Ok(scene.room.containerd_log().contains("invocation order"))
    })?;
    let pod = scene.room.run_pod("waits", &[FENCED])?;
    let signal = |signal: &str| scene.room.output(&["pkill", signal, "-x", "qfence-user"]);
    signal("-STOP")?;
    let running = start(&scene, &pod, "stopped")?;
    assert_open(&probe_in(&scene, &running)?);
    signal("-CONT")?;
    await_late(&scene, "the container stopped of the pod tests/waits")?;
    assert_fenced(&probe_in(&scene, &running)?);
    let next = start(&scene, &pod, "next")?;
    assert_fenced(&probe_in(&scene, &next)?);
    Ok(())
}

/// Whoever makes pods chooses the values of their annotations, and a refusal has them in its reason.
#[test]
fn a_plugin_whose_messages_nobody_reads_answers_nevertheless() -> Result<()> {
    let scene = scene()?;
    let _containerd = scene.room.start_node()?;
    let mut plugin = scene.room.command("qfence-user")?;
    plugin.args(["nri-plugin", "--socket", NRI_SOCKET, "--profile", "host"]);
    plugin.stderr(Stdio::piped());
    let _plugin = Process::spawn(plugin)?;
    wait_until("the plugin is registered", || {
        Ok(scene.room.containerd_log().contains("invocation order"))
    })?;
    let long = "a b".repeat(1 << 16);
    for name in ["first", "second"] {
        let pod = scene.room.run_pod(name, &[("qfence.name", &long)])?;
        let refused = scene.room.create_container(&pod, "main", &FOR_EVER)?;
        let refused = refused.expect_err("it is refused");
        assert!(refused.contains("a ba ba b"), "{refused}");
        assert!(refused.len() < 4096, "{}", refused.len());
    }
    let pod = scene.room.run_pod("fenced", &[FENCED])?;
    assert_fenced(&probe(&scene, &pod, "main")?);
    Ok(())
}

#[test]
fn a_plugin_outlives_containerd_and_two_fence_a_container_once() -> Result<()> {
    let scene = scene()?;
    install(&scene, plugin())?;
    let _plugin = connect(&scene, "20")?;
    let containerd = scene.room.start_node()?;
    wait_until("both are registered", || {
        let log = scene.room.containerd_log();
        Ok(log.contains("10-qfence") && log.contains("20-qfence"))
    })?;
    let pod = scene.room.run_pod("twice", &[FENCED])?;
    assert_fenced(&probe(&scene, &pod, "first")?);
    scene.room.kill("containerd")?;
    drop(containerd);
    // The one that containerd started ends with it, and is not started again.
    scene.room.output(&["rm", PLUGIN])?;
    let _containerd = scene.room.start_node()?;
    wait_until("the plugin is registered again", || {
        Ok(scene.room.containerd_log().contains("20-qfence"))
    })?;
    assert_fenced(&probe(&scene, &pod, "second")?);
    Ok(())
}

#[test]
fn annotations_that_widen_the_policy_are_heeded_by_a_plugin_that_trusts_them() -> Result<()> {
    let scene = scene()?;
    let trusting = plugin().replace("nri-plugin", "nri-plugin --trust-annotations");
    assert_ne!(trusting, plugin());
    install(&scene, &trusting)?;
    let _containerd = scene.room.start_node()?;
    let log = SystemLog::listen(&scene)?;
    let allowed = format!("tcp:{PODS_GATEWAY}:{}", super::PORT);
    let pod = scene.room.run_pod("wide", &[("qfence.allow", &allowed)])?;
    let results = probe(&scene, &pod, "main")?;
    for (number, result) in results.iter().enumerate() {
        // The third is TCP to the gateway, and the last two are the internet.
        let is_open = number == 2 || number > 3;
        assert_eq!(result.is_reached(), is_open, "{result:?}");
    }
    scene.room.remove_pod(&pod)?;
    let said = log.messages();
    assert!(
        said.contains("of the pod tests/wide is made with a fence"),
        "{said}"
    );
    assert!(!said.contains("error"), "{said}");
    scene.assert_nothing_left()
}

/// What passes the pod's wire is judged too: sockets that are in no cgroup of the pod, as the frames of a guest.
#[test]
fn the_wire_of_a_pod_is_fenced_as_long_as_the_pod_lives() -> Result<()> {
    let scene = scene()?;
    install(&scene, plugin())?;
    let _containerd = scene.room.start_node()?;
    let attempts = Scene::attempts(PODS_GATEWAY);
    let attempts: Vec<_> = attempts.iter().map(String::as_str).collect();
    let beside = || -> Result<Vec<ProbeResult>> {
        let timeout = ["--timeout-ms", "500"];
        read_lines(
            &scene
                .room
                .attempt_beside(&[&timeout, &attempts[..]].concat())?,
        )
    };
    let pod = scene.room.run_pod("sockets", &[FENCED])?;
    start(&scene, &pod, "main")?;
    assert_open(&beside()?);
    scene.room.remove_pod(&pod)?;

    let pod = scene.room.run_pod("wire", &[("qfence.device", "pod")])?;
    for container in ["first", "second"] {
        assert_fenced(&probe(&scene, &pod, container)?);
        let before = scene.arrived();
        for (number, result) in beside()?.into_iter().enumerate() {
            assert_eq!(result.is_reached(), number > 3, "{container}: {result:?}");
        }
        assert_eq!(scene.arrived(), (before.0, before.1 + 2), "{container}");
    }
    let fences = scene.fences()?;
    assert!(fences.contains("device veth"), "{fences}");
    scene.room.remove_pod(&pod)?;
    scene.assert_nothing_left()
}

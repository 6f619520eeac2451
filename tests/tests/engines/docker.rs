//! Docker runs containers with the runtime of contrib/docker.

use anyhow::Result;
use tests::{engines::IMAGE, process::Process, run::wait_until};

use super::{FOR_EVER, Scene, assert_fenced, assert_open};

/// The runtime.
pub(super) const WRAPPER: &str = include_str!("../../../contrib/docker/qfence-runc");

/// The node's side of Docker's bridge.
pub(super) const GATEWAY: &str = "172.17.0.1";

const CONFIGURATION: &str = r#"{ "runtimes": {
    "qfence": { "path": "/usr/local/bin/qfence-runc" },
    "broken": { "path": "/usr/local/bin/broken-runc" },
    "unread": { "path": "/usr/local/bin/unread-runc" }
} }"#;

pub(super) fn scene() -> Result<(Scene, Process)> {
    scene_with(CONFIGURATION)
}

/// The same with this configuration of Docker.
pub(super) fn scene_with(configuration: &str) -> Result<(Scene, Process)> {
    let scene = Scene::new()?;
    let broken = WRAPPER.replace("--profile host", "--profile nonsense");
    assert_ne!(broken, WRAPPER);
    // The runtime has the last of these options, and there is nothing to add the hook to.
    let unread = WRAPPER.replace("\"$@\"", "\"$@\" --bundle /nowhere");
    assert_ne!(unread, WRAPPER);
    for (name, text) in [
        ("qfence", WRAPPER),
        ("broken", &broken),
        ("unread", &unread),
    ] {
        let path = format!("/usr/local/bin/{name}-runc");
        scene.room.write(&path, text)?;
        scene.room.output(&["chmod", "755", &path])?;
    }
    scene.room.write("/etc/docker/daemon.json", configuration)?;
    let docker = scene.room.start_docker()?;
    scene.room.import("docker")?;
    Ok((scene, docker))
}

#[test]
fn a_container_with_the_runtime_is_fenced_and_does_not_start_otherwise() -> Result<()> {
    let (scene, _docker) = scene()?;
    let run = ["docker", "run", "--rm"];
    assert_open(&scene.probe(&run, GATEWAY)?)?;
    let arrived = scene.arrived();
    assert_eq!(arrived, (4, 2), "control");
    let fenced = [&run[..], &["--runtime", "qfence"]].concat();
    assert_fenced(&scene.probe(&fenced, GATEWAY)?)?;
    assert_eq!(scene.arrived(), (arrived.0, arrived.1 + 2));
    scene.assert_nothing_left()?;

    for (runtime, words) in [("broken", "nonsense"), ("unread", "cannot add the hook")] {
        let run = ["docker", "run", "--rm", "--runtime", runtime, IMAGE];
        let ended = scene
            .room
            .run(&[&run[..], &["sh", "-c", "echo ran"]].concat())?;
        assert_ne!(ended.code(), Some(0), "{ended:?}");
        assert!(!ended.stdout.contains("ran"), "{ended:?}");
        assert!(ended.stderr.contains(words), "{ended:?}");
        scene.assert_nothing_left()?;
    }
    Ok(())
}

#[test]
fn a_container_gets_its_fence_at_each_start() -> Result<()> {
    let (scene, _docker) = scene()?;
    let options = ["--detach", "--name", "web", "--runtime", "qfence", IMAGE];
    scene
        .room
        .output(&[&["docker", "run"], &options[..], &FOR_EVER].concat())?;
    let restart = ["docker", "restart", "--time", "0", "web"];
    for step in [
        &restart[..],
        &["docker", "pause", "web"],
        &["docker", "unpause", "web"],
        &["docker", "kill", "web"],
        &["docker", "start", "web"],
    ] {
        // Before it is started it has none, and while it is paused nothing runs in it.
        if step[1] == "start" {
            scene.assert_nothing_left()?;
        } else {
            let fences = scene.fences()?;
            assert!(fences.contains("(oci)"), "{fences}");
        }
        if !matches!(step[1], "unpause" | "start") {
            assert_fenced(&scene.probe_in("docker", "web", GATEWAY)?)?;
        }
        scene.room.output(step)?;
    }
    assert_fenced(&scene.probe_in("docker", "web", GATEWAY)?)?;
    scene.room.output(&["docker", "rm", "--force", "web"])?;
    scene.assert_nothing_left()
}

/// With live-restore, containers outlive dockerd; otherwise it ends them when it stops, or the next one does.
#[test]
fn a_fence_does_not_depend_on_dockerd() -> Result<()> {
    for (is_live, is_killed) in [(true, true), (true, false), (false, true), (false, false)] {
        let start = format!("{{ \"live-restore\": {is_live}, ");
        let configuration = CONFIGURATION.replacen('{', &start, 1);
        let (scene, docker) = scene_with(&configuration)?;
        let options = ["--detach", "--name", "web", "--runtime", "qfence"];
        let run = ["docker", "run", "--stop-timeout", "1"];
        scene
            .room
            .output(&[&run, &options[..], &[IMAGE], &FOR_EVER].concat())?;
        if is_killed {
            scene.room.kill("dockerd")?;
        } else {
            scene.room.stop("dockerd")?;
        }
        drop(docker);
        if is_live || is_killed {
            assert!(scene.fences()?.contains("(oci)"), "live: {is_live}");
        } else {
            scene.assert_nothing_left()?;
        }
        let _docker = scene.room.start_docker()?;
        if is_live {
            assert_fenced(&scene.probe_in("docker", "web", GATEWAY)?)?;
        } else {
            let inspect = ["docker", "inspect", "--format", "{{.State.Running}}", "web"];
            wait_until("Docker has ended the container", || {
                Ok(scene.room.output(&inspect)?.trim() == "false")
            })?;
        }
        scene.room.output(&["docker", "rm", "--force", "web"])?;
        scene.assert_nothing_left()?;
    }
    Ok(())
}

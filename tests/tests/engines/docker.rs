//! Docker runs containers with the runtime of contrib/docker.

use anyhow::Result;
use tests::{engines::IMAGE, process::Process};

use super::{FOR_EVER, Scene, assert_fenced, assert_open};

/// The node's side of Docker's bridge.
const GATEWAY: &str = "172.17.0.1";

const CONFIGURATION: &str = r#"{ "runtimes": {
    "qfence": { "path": "/usr/local/bin/qfence-runc" },
    "broken": { "path": "/usr/local/bin/broken-runc" },
    "unread": { "path": "/usr/local/bin/unread-runc" }
} }"#;

pub(super) fn scene() -> Result<(Scene, Process)> {
    let scene = Scene::new()?;
    let wrapper = include_str!("../../../contrib/docker/qfence-runc");
    let broken = wrapper.replace("--profile host", "--profile nonsense");
    assert_ne!(broken, wrapper);
    // The runtime has the last of these options, and there is nothing to add the hook to.
    let unread = wrapper.replace("\"$@\"", "\"$@\" --bundle /nowhere");
    assert_ne!(unread, wrapper);
    for (name, text) in [
        ("qfence", wrapper),
        ("broken", &broken),
        ("unread", &unread),
    ] {
        let path = format!("/usr/local/bin/{name}-runc");
        scene.room.write(&path, text)?;
        scene.room.output(&["chmod", "755", &path])?;
    }
    scene.room.write("/etc/docker/daemon.json", CONFIGURATION)?;
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
    ] {
        let fences = scene.fences()?;
        assert!(fences.contains("(oci)"), "{fences}");
        if step != ["docker", "unpause", "web"] {
            assert_fenced(&scene.probe_in("docker", "web", GATEWAY)?)?;
        }
        scene.room.output(step)?;
    }
    assert_fenced(&scene.probe_in("docker", "web", GATEWAY)?)?;
    scene.room.output(&["docker", "rm", "--force", "web"])?;
    scene.assert_nothing_left()
}

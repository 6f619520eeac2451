//! `attach --container` finds containers of real engines that run already.

use anyhow::{Context as _, Result};
use tests::engines::IMAGE;

use super::{FOR_EVER, Scene, assert_fenced, assert_open};

/// Attaches to a running container by each of its names; the container is not fenced before and after.
fn attaches(scene: &Scene, engine: &str, gateway: &str) -> Result<()> {
    let options = ["run", "--detach", "--name", "web", IMAGE];
    scene
        .room
        .output(&[&[engine], &options[..], &FOR_EVER].concat())?;
    let list = [engine, "ps", "--quiet", "--no-trunc"];
    let id = scene.room.output(&list)?.trim().to_owned();
    let short = id.get(..7).context("an id")?;
    let qualified = format!("{engine}:web");
    for name in ["web", &qualified, &id, short] {
        assert_open(&scene.probe_in(engine, "web", gateway)?)?;
        let attach = [
            "qfence-user",
            "attach",
            "--container",
            name,
            "--detach",
            "--name",
            "f",
        ];
        scene.room.output(&attach)?;
        let fences = scene.fences()?;
        assert!(
            fences.contains(&format!("container web ({engine})")),
            "{fences}"
        );
        assert_fenced(&scene.probe_in(engine, "web", gateway)?)?;
        scene.room.output(&["qfence-user", "rm", "f"])?;
    }
    scene.room.output(&[engine, "stop", "--time", "0", "web"])?;
    let attach = ["qfence-user", "attach", "--container", "web", "--detach"];
    let ended = scene.room.run(&attach)?;
    assert!(ended.stderr.contains("does not run"), "{ended:?}");
    scene.room.output(&[engine, "rm", "web"])?;
    let ended = scene.room.run(&attach)?;
    assert!(
        ended.stderr.contains("there is no container \"web\""),
        "{ended:?}"
    );
    scene.assert_nothing_left()
}

#[test]
fn a_container_of_podman_that_runs_is_found() -> Result<()> {
    let scene = Scene::new()?;
    scene.room.import("podman")?;
    attaches(&scene, "podman", "10.88.0.1")
}

#[test]
fn a_container_of_docker_that_runs_is_found() -> Result<()> {
    let scene = Scene::new()?;
    let _docker = scene.room.start_docker()?;
    scene.room.import("docker")?;
    attaches(&scene, "docker", "172.17.0.1")
}

#[test]
fn a_container_whose_network_is_made_outside_is_refused() -> Result<()> {
    let scene = Scene::new()?;
    scene.room.import("podman")?;
    let options = [
        "--detach",
        "--name",
        "web",
        "--network",
        "slirp4netns",
        IMAGE,
    ];
    scene
        .room
        .output(&[&["podman", "run"], &options[..], &FOR_EVER].concat())?;
    let attach = [
        "qfence-user",
        "attach",
        "--container",
        "web",
        "--detach",
        "--name",
        "f",
    ];
    let ended = scene.room.run(&attach)?;
    assert_ne!(ended.code(), Some(0), "{ended:?}");
    let words = "is made by slirp4netns (";
    assert!(ended.stderr.contains(words), "{ended:?}");
    scene.assert_nothing_left()?;
    // The control: the same with podman's bridge.
    scene
        .room
        .output(&["podman", "rm", "--force", "--time", "0", "web"])?;
    let options = ["--detach", "--name", "web", IMAGE];
    scene
        .room
        .output(&[&["podman", "run"], &options[..], &FOR_EVER].concat())?;
    scene.room.output(&attach)?;
    Ok(())
}

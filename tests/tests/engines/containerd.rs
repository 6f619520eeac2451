//! containerd runs containers with the runtime of contrib/docker, as a runtime class of Kubernetes does.

use anyhow::Result;
use tests::{
    engines::{IMAGE, PROBE},
    run::Ended,
    world::BRIDGE_V4,
};

use super::{Scene, assert_fenced, assert_open};

const RUNTIME: &str = "/usr/local/bin/qfence-runc";

/// Runs a container in the network of the node. The machine need not have the controller `cpu`.
fn run(scene: &Scene, name: &str, options: &[&str], command: &[&str]) -> Result<Ended> {
    let run = [
        "ctr",
        "run",
        "--rm",
        "--net-host",
        "--snapshotter",
        "native",
    ];
    let shares = ["--cpu-shares", "0"];
    let image = format!("{IMAGE}:latest");
    scene
        .room
        .run(&[&run[..], &shares, options, &[&image, name], command].concat())
}

#[test]
fn a_container_with_the_runtime_is_fenced_and_does_not_start_otherwise() -> Result<()> {
    let scene = Scene::new()?;
    let wrapper = include_str!("../../../contrib/docker/qfence-runc");
    let broken = wrapper.replace("--profile host", "--profile nonsense");
    assert_ne!(broken, wrapper);
    let _containerd = scene.room.start_containerd()?;
    let fenced = ["--runc-binary", RUNTIME];
    let gateway = BRIDGE_V4.to_string();
    let attempts = Scene::attempts(&gateway);
    let attempts: Vec<_> = attempts.iter().map(String::as_str).collect();
    let probe = [&[PROBE], &attempts[..]].concat();
    assert_open(&run(&scene, "open", &[], &probe)?)?;
    let arrived = scene.arrived();
    assert_eq!(arrived, (4, 2), "control");
    for (text, name) in [(wrapper, "fenced"), (&broken, "broken")] {
        scene.room.write(RUNTIME, text)?;
        scene.room.output(&["chmod", "755", RUNTIME])?;
        let ended = run(&scene, name, &fenced, &probe)?;
        if name == "fenced" {
            assert_fenced(&ended)?;
        } else {
            assert_ne!(ended.code(), Some(0), "{ended:?}");
            assert!(ended.stderr.contains("nonsense"), "{ended:?}");
        }
        assert_eq!(scene.arrived(), (arrived.0, arrived.1 + 2), "{name}");
        scene.assert_nothing_left()?;
    }
    Ok(())
}

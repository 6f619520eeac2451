//! qfence in a container fences what runs outside of it, with the options that docs/containers.md names. `doctor` names each
//! of them that is missing.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result};
use serde_json::Value;
use tests::engines::{IMAGE, QFENCE};

use super::{FOR_EVER, Scene, assert_fenced, assert_open};

/// The node's side of podman's bridge.
const GATEWAY: &str = "10.88.0.1";

const CGROUPS: &str = "--cgroupns=host";
const PROCESSES: &str = "--pid=host";
const NETWORK: &str = "--network=host";
const PINS: &str = "--volume=/sys/fs/bpf:/sys/fs/bpf";
const STATE: &str = "--volume=/run/qfence:/run/qfence";

/// The options of the documents.
const OPTIONS: [&str; 7] = [
    "--privileged",
    CGROUPS,
    PROCESSES,
    NETWORK,
    PINS,
    "--volume=/sys/fs/cgroup:/sys/fs/cgroup",
    STATE,
];

fn scene() -> Result<Scene> {
    let scene = Scene::new()?;
    scene.room.import("podman")?;
    scene.room.import_qfence()?;
    // A host without a fence need not have it.
    scene.room.output(&["mkdir", "-p", "/run/qfence"])?;
    Ok(scene)
}

/// Runs a command in a container of qfence, with all options but one.
fn run(scene: &Scene, without: Option<&str>, command: &[&str]) -> Result<tests::run::Ended> {
    let options = OPTIONS.iter().copied();
    let options: Vec<_> = options.filter(|one| Some(*one) != without).collect();
    let run = ["podman", "run", "--rm"];
    scene
        .room
        .run(&[&run, &options[..], &[QFENCE], command].concat())
}

#[test]
fn a_container_of_qfence_fences_another() -> Result<()> {
    let scene = scene()?;
    let options = ["--detach", "--name", "web", IMAGE];
    let start = [&["podman", "run"], &options[..], &FOR_EVER].concat();
    scene.room.output(&start)?;
    let inspect = ["podman", "inspect", "--format", "{{.State.Pid}}", "web"];
    let pid = scene.room.output(&inspect)?.trim().to_owned();
    let attach = [
        "qfence-user",
        "attach",
        "--pid",
        &pid,
        "--detach",
        "--name",
        "f",
    ];
    // A pod cannot ask for the cgroup namespace of the node, and enters it.
    let enter = ["nsenter", "--target", "1", "--cgroup", "--"];
    for (without, command) in [
        (None, attach.to_vec()),
        (Some(CGROUPS), [&enter[..], &attach].concat()),
    ] {
        assert_open(&scene.probe_in("podman", "web", GATEWAY)?)?;
        let attached = run(&scene, without, &command)?;
        assert_eq!(attached.code(), Some(0), "{without:?}: {attached:?}");
        // It stays when the container of qfence has ended, and qfence on the host knows it.
        let fences = scene.fences()?;
        assert!(fences.contains("\"detached\""), "{without:?}: {fences}");
        assert_fenced(&scene.probe_in("podman", "web", GATEWAY)?)?;
        let removed = run(&scene, None, &["qfence-user", "rm", "f"])?;
        assert_eq!(removed.code(), Some(0), "{removed:?}");
        scene.assert_nothing_left()?;
    }
    // Without it, that is an error.
    let refused = run(&scene, Some(CGROUPS), &attach)?;
    assert_eq!(refused.code(), Some(125), "{refused:?}");
    assert!(refused.stderr.contains("--cgroupns=host"), "{refused:?}");
    scene.assert_nothing_left()
}

#[test]
fn doctor_names_each_namespace_and_mount_that_a_container_lacks() -> Result<()> {
    let scene = scene()?;
    for (without, lacks) in [
        (None, None),
        (Some(CGROUPS), Some("cgroup namespace")),
        (Some(PROCESSES), Some("process namespace")),
        (Some(NETWORK), Some("network namespace")),
        (Some(PINS), Some("pins")),
        (Some(STATE), Some("state")),
    ] {
        let ended = run(&scene, without, &["qfence-user", "doctor", "--json"])?;
        let findings: Vec<Value> = serde_json::from_str(&ended.stdout)
            .with_context(|| format!("{without:?}: {ended:?}"))?;
        let of_container = |finding: &Value| {
            let name = finding["name"].as_str()?.to_owned();
            let state = finding["state"].as_str()?.to_owned();
            name.starts_with("container").then_some((name, state))
        };
        let found: BTreeSet<_> = findings.iter().filter_map(of_container).collect();
        let expected = match lacks {
            None => ("container".to_owned(), "ok".to_owned()),
            Some(what) => (format!("container: {what}"), "degraded".to_owned()),
        };
        assert_eq!(found, BTreeSet::from([expected]), "{without:?}");
    }
    Ok(())
}

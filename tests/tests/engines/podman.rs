//! podman calls the hook of contrib/oci for containers with an annotation.

use std::{os::unix::net::UnixDatagram, time::Duration};

use anyhow::{Context as _, Result, ensure};
use tests::{
    engines::{CRUN, IMAGE},
    process::Process,
    run::{HANG, wait_until},
};

use super::{FOR_EVER, Scene, assert_fenced, assert_open};

/// The node's side of podman's bridge.
const GATEWAY: &str = "10.88.0.1";

/// Where podman looks for hooks. It does not look in /etc unless its configuration names that.
const HOOKS: &str = "/usr/share/containers/oci/hooks.d";

pub(super) fn scene() -> Result<Scene> {
    let scene = Scene::new()?;
    let create = include_str!("../../../contrib/oci/qfence.json");
    let stop = include_str!("../../../contrib/oci/qfence-poststop.json");
    for (name, hook) in [("qfence.json", create), ("qfence-poststop.json", stop)] {
        scene.room.write(&format!("{HOOKS}/{name}"), hook)?;
    }
    scene.room.import("podman")?;
    Ok(scene)
}

#[test]
fn a_container_with_the_annotation_is_fenced_from_its_first_instruction() -> Result<()> {
    let scene = scene()?;
    scene.room.make_crun()?;
    for runtime in ["runc", CRUN] {
        let run = ["podman", "--runtime", runtime, "run", "--rm"];
        let before = scene.arrived();
        assert_open(&scene.probe(&run, GATEWAY)?)?;
        let after = scene.arrived();
        assert_eq!(after, (before.0 + 4, before.1 + 2), "control: {runtime}");

        let annotated = [&run[..], &["--annotation", "qfence=on"]].concat();
        assert_fenced(&scene.probe(&annotated, GATEWAY)?)?;
        assert_eq!(scene.arrived(), (after.0, after.1 + 2), "{runtime}");
        scene.assert_nothing_left()?;
    }
    Ok(())
}

#[test]
fn a_container_stays_fenced_when_it_is_paused_and_killed_and_started() -> Result<()> {
    let scene = scene()?;
    scene.room.make_crun()?;
    for runtime in ["runc", CRUN] {
        let run = ["podman", "--runtime", runtime, "run", "--detach"];
        let options = ["--name", "web", "--annotation", "qfence=on", IMAGE];
        scene
            .room
            .output(&[&run, &options[..], &FOR_EVER].concat())?;
        for steps in [
            &[][..],
            &[&["pause", "web"][..], &["unpause", "web"]],
            &[&["kill", "web"], &["wait", "web"], &["start", "web"]],
        ] {
            for step in steps {
                scene.room.output(&[&["podman"], *step].concat())?;
                if step[0] == "pause" {
                    assert!(scene.fences()?.contains("(oci)"), "{runtime}");
                }
                if step[0] == "wait" {
                    scene.assert_nothing_left()?;
                }
            }
            assert_fenced(&scene.probe_in("podman", "web", GATEWAY)?)?;
        }
        let remove = ["podman", "rm", "--force", "--time", "0", "web"];
        scene.room.output(&remove)?;
        scene.assert_nothing_left()?;
    }
    Ok(())
}

#[test]
fn a_container_gets_its_fence_at_each_start() -> Result<()> {
    let scene = scene()?;
    let options = [
        "--detach",
        "--name",
        "web",
        "--annotation",
        "qfence.name=web",
    ];
    let run = [&["podman", "run"], &options[..], &[IMAGE], &FOR_EVER].concat();
    scene.room.output(&run)?;
    for round in ["started", "restarted"] {
        let fences = scene.fences()?;
        assert!(fences.contains("\"web\""), "{round}: {fences}");
        assert_fenced(&scene.probe_in("podman", "web", GATEWAY)?)?;
        let restart = ["podman", "restart", "--time", "0", "web"];
        scene.room.output(&restart)?;
    }

    // A container that wants the name of this fence does not start, and does not take it away.
    let other = [
        "podman",
        "run",
        "--rm",
        "--annotation",
        "qfence.name=web",
        IMAGE,
    ];
    let ended = scene
        .room
        .run(&[&other[..], &["sh", "-c", "echo ran"]].concat())?;
    assert_ne!(ended.code(), Some(0), "{ended:?}");
    assert!(ended.stderr.contains("already exists"), "{ended:?}");
    assert!(!ended.stdout.contains("ran"), "{ended:?}");
    assert_fenced(&scene.probe_in("podman", "web", GATEWAY)?)?;

    let remove = ["podman", "rm", "--force", "--time", "0", "web"];
    scene.room.output(&remove)?;
    scene.assert_nothing_left()
}

#[test]
fn a_container_whose_hook_fails_does_not_start() -> Result<()> {
    let scene = scene()?;
    scene.room.make_crun()?;
    let marker = "/run/started";
    let touch = format!("echo ran > {marker}/file");
    scene.room.output(&["mkdir", marker])?;
    let volume = format!("{marker}:{marker}");
    let run = |runtime, options: &[&str]| {
        let run = [
            "podman",
            "--runtime",
            runtime,
            "run",
            "--rm",
            "--volume",
            &volume,
        ];
        let all = [&run, options, &[IMAGE, "sh", "-c", &touch]].concat();
        scene.room.run(&all)
    };
    let marker = scene.room.path(marker).join("file");
    let log = UnixDatagram::bind(scene.room.path("/dev/log"))?;
    log.set_nonblocking(true)?;
    // crun does not pass on what a hook says: it is in the system's log.
    let logged = || {
        let mut message = [0; 4096];
        let length = log.recv(&mut message).unwrap_or_default();
        String::from_utf8_lossy(&message[..length]).into_owned()
    };
    for (annotation, words) in [
        ("qfence.alow=any", "there is no annotation"),
        ("qfence.allow=any", "could be the image's"),
        ("qfence.deny=nonsense:x", "nonsense"),
        ("qfence.name=a/b", "cannot be the name of a fence"),
    ] {
        for runtime in ["runc", CRUN] {
            let ended = run(runtime, &["--annotation", annotation])?;
            assert_ne!(ended.code(), Some(0), "{annotation}: {ended:?}");
            let logged = logged();
            assert!(logged.contains(words), "{annotation}: {logged}");
            let is_said = ended.stderr.contains(words);
            assert!(is_said || runtime == CRUN, "{annotation}: {ended:?}");
            assert!(!marker.exists(), "{annotation}: {ended:?}");
        }
        scene.assert_nothing_left()?;
    }
    // The control: the same container starts with a rule that is one.
    for runtime in ["runc", CRUN] {
        let ended = run(runtime, &["--annotation", "qfence.deny=lan"])?;
        assert_eq!(ended.code(), Some(0), "{ended:?}");
        std::fs::remove_file(&marker)?;
    }
    Ok(())
}

#[test]
fn a_container_is_fenced_again_when_it_is_restarted_or_made_anew() -> Result<()> {
    let scene = Scene::new()?;
    scene.room.import("podman")?;
    let make = ["podman", "run", "--detach", "--name", "web", IMAGE];
    let make = [&make[..], &FOR_EVER].concat();
    scene.room.output(&make)?;
    assert_open(&scene.probe_in("podman", "web", GATEWAY)?)?;

    let errors = tempfile::NamedTempFile::new()?;
    let mut command = scene.room.command("sh")?;
    let options = "--container web --name f --restart --log none";
    let script = format!("echo $$ > /run/pid; exec qfence-user attach {options}");
    command.args(["-c", &script]).stderr(errors.reopen()?);
    let mut attach = Process::spawn(command)?;
    let mut in_force = |times: usize| {
        let said = || std::fs::read_to_string(errors.path()).unwrap_or_default();
        let waited = wait_until("the fence is in force", || {
            let ended = attach.wait(Duration::ZERO)?;
            ensure!(ended.is_none(), "it has ended: {ended:?}");
            Ok(said().matches("the fence f is in force").count() >= times)
        });
        waited.with_context(said)
    };
    in_force(1)?;
    assert_fenced(&scene.probe_in("podman", "web", GATEWAY)?)?;
    let restart = ["podman", "restart", "--time", "0", "web"];
    scene.room.output(&restart)?;
    in_force(2)?;
    assert_fenced(&scene.probe_in("podman", "web", GATEWAY)?)?;
    let remove = ["podman", "rm", "--force", "--time", "0", "web"];
    scene.room.output(&remove)?;
    wait_until("the fence has ended with the container", || {
        Ok(scene.fences()?.trim() == "[]")
    })?;
    scene.room.output(&make)?;
    in_force(3)?;
    assert_fenced(&scene.probe_in("podman", "web", GATEWAY)?)?;

    scene.room.output(&["sh", "-c", "kill $(cat /run/pid)"])?;
    let status = attach.wait(HANG)?.context("it does not end")?;
    ensure!(status.success(), "{status}");
    assert_open(&scene.probe_in("podman", "web", GATEWAY)?)?;
    scene.room.output(&remove)?;
    scene.assert_nothing_left()
}

//! podman calls the hook of contrib/oci for containers with an annotation.

use anyhow::Result;
use tests::engines::{CRUN, IMAGE};

use super::{FOR_EVER, Scene, SystemLog, assert_fenced, assert_open, followed::Followed};

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
    // crun does not pass on what a hook says: it is in the system's log.
    let log = SystemLog::listen(&scene)?;
    for (annotation, words) in [
        ("qfence.alow=any", "there is no annotation"),
        ("qfence.allow=any", "could be the image's"),
        ("qfence.deny=nonsense:x", "nonsense"),
        ("qfence.name=a/b", "cannot be the name of a fence"),
    ] {
        for runtime in ["runc", CRUN] {
            let ended = run(runtime, &["--annotation", annotation])?;
            assert_ne!(ended.code(), Some(0), "{annotation}: {ended:?}");
            let logged = log.messages();
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

    let mut followed = Followed::start(&scene, "--container web")?;
    followed.in_force(1)?;
    assert_fenced(&scene.probe_in("podman", "web", GATEWAY)?)?;
    let restart = ["podman", "restart", "--time", "0", "web"];
    scene.room.output(&restart)?;
    followed.in_force(2)?;
    assert_fenced(&scene.probe_in("podman", "web", GATEWAY)?)?;
    let remove = ["podman", "rm", "--force", "--time", "0", "web"];
    scene.room.output(&remove)?;
    followed.is_over()?;
    scene.room.output(&make)?;
    followed.in_force(3)?;
    assert_fenced(&scene.probe_in("podman", "web", GATEWAY)?)?;

    followed.end()?;
    assert_open(&scene.probe_in("podman", "web", GATEWAY)?)?;
    scene.room.output(&remove)?;
    scene.assert_nothing_left()
}

/// By such annotations crun runs the container's program itself, in place of executing it, if it was built with what they need.
/// It calls the hook before that. Debian's crun was not: it ignores them, and the container is fenced as any other.
#[test]
fn a_container_for_a_handler_of_crun_is_fenced() -> Result<()> {
    let scene = scene()?;
    scene.room.make_crun()?;
    let run = ["podman", "--runtime", CRUN, "run", "--rm", "--annotation"];
    let fenced = [&run[..], &["qfence=on", "--annotation"]].concat();
    for handler in [
        "module.wasm.image/variant=compat",
        "run.oci.handler=krun",
        "run.oci.handler=wasm",
    ] {
        let before = scene.arrived();
        assert_open(&scene.probe(&[&run[..], &[handler]].concat(), GATEWAY)?)?;
        let after = scene.arrived();
        assert_eq!(after, (before.0 + 4, before.1 + 2), "control: {handler}");
        assert_fenced(&scene.probe(&[&fenced[..], &[handler]].concat(), GATEWAY)?)?;
        assert_eq!(scene.arrived(), (after.0, after.1 + 2), "{handler}");
        scene.assert_nothing_left()?;
    }
    Ok(())
}

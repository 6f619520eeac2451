//! `policy suggest` makes a profile of what monitor mode saw.

use std::fs;

use anyhow::Result;
use tests::world::{GATEWAY_V4, GATEWAY_V6, HOST_V4, HOST_V6, SERVER_V4, SERVER_V6};

use super::{OTHER, PORT, Scene, is_filled};

#[test]
fn what_monitor_mode_saw_becomes_a_policy() -> Result<()> {
    let mut scene = Scene::new("suggest", &["--profile", "locked", "--monitor"])?;
    let needed: Vec<String> = [HOST_V4, HOST_V6, SERVER_V4, SERVER_V6]
        .iter()
        .flat_map(|address| {
            [
                format!("tcp/{address}/{PORT}"),
                format!("udp/{address}/{OTHER}"),
            ]
        })
        .collect();
    for attempt in &needed {
        let outcome = &scene.inside.attempt(&[attempt])?[0];
        assert!(outcome.is_reached(), "{outcome:?}");
    }
    assert!(
        scene
            .fence
            .refusals()?
            .iter()
            .all(|refusal| refusal.verdict == "would-deny")
    );
    let suggested = scene.ask(&["policy", "suggest", scene.fence.name()])?;
    assert_eq!(suggested.code(), Some(0), "{suggested:?}");
    assert_eq!(suggested.stderr, "");
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("suggested.toml");
    fs::write(&path, &suggested.stdout)?;

    let profile = path.display().to_string();
    let ended = scene.ask(&[
        "set",
        scene.fence.name(),
        "--profile",
        &profile,
        "--enforce",
    ])?;
    assert_eq!((ended.code(), &*ended.stderr), (Some(0), ""), "{ended:?}");
    for attempt in &needed {
        let outcome = &scene.inside.attempt(&[attempt])?[0];
        assert!(outcome.is_reached(), "{outcome:?}\n{}", suggested.stdout);
    }
    // The same at other ports, and by the other protocol, was not seen.
    for address in [
        HOST_V4, HOST_V6, SERVER_V4, SERVER_V6, GATEWAY_V4, GATEWAY_V6,
    ] {
        for attempt in [
            format!("tcp/{address}/{OTHER}"),
            format!("udp/{address}/{PORT}"),
        ] {
            let outcome = &scene.inside.attempt(&[&attempt])?[0];
            assert!(
                outcome.failed_with("ECONNREFUSED"),
                "{outcome:?}\n{}",
                suggested.stdout
            );
        }
    }
    Ok(())
}

#[test]
fn where_nothing_was_monitored_nothing_is_suggested() -> Result<()> {
    let mut scene = Scene::new("nothing", &[])?;
    scene.inside.attempt(&[&format!("tcp/{HOST_V4}/{PORT}")])?;
    let ended = scene.ask(&["policy", "suggest", scene.fence.name()])?;
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    assert!(
        ended.stderr.starts_with("qfence: nothing was seen: "),
        "{ended:?}"
    );
    assert!(!ended.stdout.contains("192.0.2.10"), "{ended:?}");
    for words in [
        &["policy", "show", "t-no-such"][..],
        &["policy", "suggest", "t-no-such"],
        &["explain", "t-no-such", "tcp:1.1.1.1:1"],
    ] {
        let ended = scene.ask(words)?;
        assert_eq!(ended.code(), Some(125), "{ended:?}");
        assert!(
            ended.stderr.contains("no fence named \"t-no-such\""),
            "{ended:?}"
        );
    }
    Ok(())
}

#[test]
fn a_fence_that_begins_to_monitor_sees_and_what_it_saw_stays() -> Result<()> {
    let mut scene = Scene::new("begins", &[])?;
    let change = |scene: &Scene, options: &[&str]| -> Result<()> {
        let ended = scene.ask(&[&["set", scene.fence.name()], options].concat())?;
        assert_eq!((ended.code(), &*ended.stderr), (Some(0), ""), "{ended:?}");
        Ok(())
    };
    // As often as each was seen.
    let suggested = |scene: &Scene| -> Result<String> {
        let suggested = scene.ask(&["policy", "suggest", scene.fence.name()])?;
        assert_eq!((suggested.code(), &*suggested.stderr), (Some(0), ""));
        Ok(suggested.stdout)
    };
    let first = format!("tcp/{HOST_V4}/{PORT}");
    let second = format!("udp/{HOST_V6}/{OTHER}");
    assert!(!is_filled(&scene.fence, "SIGHTINGS")?);
    assert!(scene.inside.attempt(&[&first])?[0].failed_with("ECONNREFUSED"));
    change(&scene, &["--deny", "10.0.0.1"])?;
    assert!(!is_filled(&scene.fence, "SIGHTINGS")?);

    change(&scene, &["--monitor"])?;
    assert!(is_filled(&scene.fence, "SIGHTINGS")?);
    assert!(scene.inside.attempt(&[&first])?[0].is_reached());
    let seen = suggested(&scene)?;
    assert!(seen.contains("tcp:192.0.2.10:8080"), "{seen}");
    change(&scene, &["--enforce"])?;
    assert!(scene.inside.attempt(&[&second])?[0].failed_with("ECONNREFUSED"));
    assert_eq!(suggested(&scene)?, seen);
    change(&scene, &["--monitor"])?;
    assert_eq!(suggested(&scene)?, seen);
    assert!(scene.inside.attempt(&[&second])?[0].is_reached());
    let seen = suggested(&scene)?;
    for rule in ["tcp:192.0.2.10:8080", "udp:[2001:db8:1::10]:8081"] {
        assert!(seen.contains(rule), "{rule}: {seen}");
    }
    let shown = scene.ask(&["ps", "--json"])?;
    assert!(!shown.stdout.contains("\"unlisted\":1"), "{shown:?}");
    Ok(())
}

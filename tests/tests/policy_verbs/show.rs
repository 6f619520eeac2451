//! `policy show` counts the decisions of each rule.

use anyhow::{Context as _, Result};
use tests::world::{GATEWAY_V4, GATEWAY_V6, HOST_V4, HOST_V6};

use super::{OTHER, PORT, RULES, Scene, is_filled};

/// How many calls and packets a rule has decided.
fn hits(scene: &Scene, rule: &str) -> Result<(u64, u64)> {
    let shown = scene.json(&["policy", "show", scene.fence.name(), "--json"])?;
    let rules = shown["rules"].as_array().context("rules")?;
    let found = rules.iter().find(|found| found["rule"] == rule);
    let found = found.with_context(|| format!("no {rule}: {shown}"))?;
    let number = |field: &str| found[field].as_u64().context("a number");
    Ok((number("calls")?, number("packets")?))
}

#[test]
fn show_counts_what_each_rule_has_decided() -> Result<()> {
    let mut scene = Scene::new("show", &RULES)?;
    for (rule, attempt, packets) in [
        ("deny host", format!("udp/{HOST_V4}/{OTHER}"), 0),
        ("deny host", format!("udp/{HOST_V6}/{OTHER}"), 0),
        (
            "deny udp:192.0.2.1:8080-8081",
            format!("udp/{GATEWAY_V4}/{PORT}"),
            0,
        ),
        (
            "deny udp:[2001:db8:1::1]:8080-8081",
            format!("udp/{GATEWAY_V6}/{PORT}"),
            0,
        ),
        // The SYN and nothing else.
        (
            "allow tcp:192.0.2.10:8080",
            format!("tcp/{HOST_V4}/{PORT}"),
            1,
        ),
        (
            "allow tcp:[2001:db8:1::10]:8080",
            format!("tcp/{HOST_V6}/{PORT}"),
            1,
        ),
    ] {
        let before = hits(&scene, rule)?;
        scene.inside.attempt(&[&attempt])?;
        let after = hits(&scene, rule)?;
        assert_eq!(
            (after.0 - before.0, after.1 - before.1),
            (1, packets),
            "{attempt}"
        );
    }
    let shown = scene.json(&["policy", "show", scene.fence.name(), "--json"])?;
    let sets = shown["sets"].as_array().context("sets")?;
    let host = sets
        .iter()
        .find(|set| set["set"] == "host")
        .context("host")?;
    let members = host["members"].as_array().context("members")?;
    for address in ["192.0.2.10", "[2001:db8:1::10]", "127.0.0.0/8"] {
        assert!(
            members.iter().any(|member| member == address),
            "{address}: {members:?}"
        );
    }
    // A rule keeps its count through a change, and a new one begins at 0.
    let before = hits(&scene, "deny host")?;
    let ended = scene.ask(&["set", scene.fence.name(), "--deny", "tcp:192.0.2.1:9"])?;
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    assert_eq!(hits(&scene, "deny host")?, before);
    assert_eq!(hits(&scene, "deny tcp:192.0.2.1:9")?, (0, 0));
    Ok(())
}

/// More rules than a fence was started with, and their numbers are beyond those that it had counters for.
#[test]
fn rules_that_come_later_are_counted_however_many() -> Result<()> {
    const MANY: usize = 300;
    let mut scene = Scene::new("later", &[])?;
    let refused = format!("udp/{HOST_V4}/{OTHER}");
    let allowed = format!("tcp/{HOST_V4}/{PORT}");
    scene.inside.attempt(&[&refused])?;
    assert_eq!(hits(&scene, "deny host")?, (1, 0));
    assert!(!is_filled(&scene.fence, "MORE_HITS")?);

    let mut rules: Vec<String> = (0..MANY)
        .map(|index| format!("10.1.{}.{}", index / 256, index % 256))
        .flat_map(|address| ["--deny".to_owned(), address])
        .collect();
    let before: Vec<String> = ["set", scene.fence.name()].map(str::to_owned).into();
    let last = [
        "--deny",
        "udp:192.0.2.10:8081",
        "--allow",
        "tcp:192.0.2.10:8080",
    ];
    rules.extend(last.map(str::to_owned));
    let words: Vec<&str> = before.iter().chain(&rules).map(String::as_str).collect();
    let ended = scene.ask(&words)?;
    assert_eq!((ended.code(), &*ended.stderr), (Some(0), ""), "{ended:?}");
    assert!(is_filled(&scene.fence, "MORE_HITS")?);
    for count in 1..=3 {
        let outcomes = scene.inside.attempt(&[&refused, &allowed])?;
        assert!(outcomes[0].failed_with("ECONNREFUSED"), "{outcomes:?}");
        assert!(outcomes[1].is_reached(), "{outcomes:?}");
        assert_eq!(hits(&scene, "deny udp:192.0.2.10:8081")?, (count, 0));
        // The SYN and nothing else.
        assert_eq!(hits(&scene, "allow tcp:192.0.2.10:8080")?, (count, count));
    }
    // Those of before are where they were.
    assert_eq!(hits(&scene, "deny host")?, (1, 0));
    Ok(())
}

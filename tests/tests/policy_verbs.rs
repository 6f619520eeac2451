//! `explain` and `policy` tell what the kernel does.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};
use aya::maps::{ArrayOfMaps, Map, MapData, MapError};
use qfence_user::kernel::pins::{Pins, of_maps};
use serde_json::Value;
use tests::{
    fence::{Fence, qfence},
    listener::Listeners,
    namespace::NOBODY,
    run::{Ended, to_end},
    shell::Shell,
    workspace,
    world::{
        BRIDGE_V4, BRIDGE_V6, GATEWAY_V4, GATEWAY_V6, HOST_V4, HOST_V6, SERVER_V4, SERVER_V6, World,
    },
};

const PORT: u16 = 8080;
const OTHER: u16 = 8081;

/// Rules of all kinds, for both families.
const RULES: [&str; 10] = [
    "--allow",
    "tcp:192.0.2.10:8080",
    "--allow",
    "tcp:[2001:db8:1::10]:8080",
    "--deny",
    "udp:192.0.2.1:8080-8081",
    "--deny",
    "udp:[2001:db8:1::1]:8080-8081",
    "--deny",
    "icmp:internet",
];

struct Scene {
    world: World,
    fence: Fence,
    inside: Shell,
    _services: Vec<Listeners>,
}

impl Scene {
    fn new(label: &str, options: &[&str]) -> Result<Self> {
        let world = World::new()?;
        let mut services = Vec::new();
        for port in [PORT, OTHER] {
            services.push(Listeners::everywhere(&world.host, port)?);
            services.push(Listeners::everywhere(&world.internet, port)?);
        }
        let fence = Fence::new(label)?.with(&["--user", "nobody"]).with(options);
        let inside = Shell::start(fence.command(&world.host, "sh"))?;
        Ok(Self {
            world,
            fence,
            inside,
            _services: services,
        })
    }

    fn ask(&self, words: &[&str]) -> Result<Ended> {
        let mut command = self.world.host.command(qfence()?);
        command.args(words);
        to_end(command)
    }

    fn json(&self, words: &[&str]) -> Result<Value> {
        let ended = self.ask(words)?;
        assert_eq!(ended.code(), Some(0), "{words:?}: {ended:?}");
        serde_json::from_str(&ended.stdout).with_context(|| format!("{ended:?}"))
    }

    /// What `explain` says of a call.
    fn verdict(&self, destination: &str) -> Result<Value> {
        let all = self.json(&["explain", self.fence.name(), "--json", destination])?;
        let cases = all[0]["by_address"].as_array().context("cases")?.clone();
        assert_eq!(cases.len(), 1, "{all}");
        Ok(cases[0].clone())
    }
}

/// Asks `explain`, and then tries: the two agree for every destination.
fn assert_agrees(scene: &mut Scene) -> Result<()> {
    let (mut allowed, mut denied) = (0, 0);
    for address in [
        HOST_V4, HOST_V6, BRIDGE_V4, BRIDGE_V6, GATEWAY_V4, GATEWAY_V6, SERVER_V4, SERVER_V6,
    ] {
        for port in [PORT, OTHER] {
            for way in ["tcp", "udp"] {
                let target = std::net::SocketAddr::new(address, port);
                let said = scene.verdict(&format!("{way}:{target}"))?;
                let attempt = format!("{way}/{address}/{port}");
                let outcome = &scene.inside.attempt(&["--timeout-ms", "1000", &attempt])?[0];
                match said["verdict"].as_str() {
                    Some("allow") => {
                        assert!(outcome.is_reached(), "{said}: {outcome:?}");
                        allowed += 1;
                    }
                    Some("deny") => {
                        assert!(outcome.failed_with("ECONNREFUSED"), "{said}: {outcome:?}");
                        denied += 1;
                    }
                    _ => anyhow::bail!("{said}"),
                }
            }
        }
    }
    assert!(allowed > 8 && denied > 8, "{allowed} {denied}");
    Ok(())
}

#[test]
fn explain_says_what_then_happens() -> Result<()> {
    let mut scene = Scene::new("explain", &RULES)?;
    assert_agrees(&mut scene)?;
    // After a change, and without a supervisor, as well.
    let ended = scene.ask(&[
        "set",
        scene.fence.name(),
        "--deny",
        "tcp:192.0.2.10:8080",
        "--allow",
        "host:8081",
    ])?;
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    assert_agrees(&mut scene)?;
    scene.inside.kill_supervisor()?;
    assert_agrees(&mut scene)
}

#[test]
fn explain_names_rule_source_set_and_member() -> Result<()> {
    let scene = Scene::new("names", &RULES)?;
    for (destination, verdict, rule, source, set, member) in [
        (
            "tcp:192.0.2.10:8080",
            "allow",
            "allow tcp:192.0.2.10:8080",
            "--allow tcp:192.0.2.10:8080",
            "192.0.2.10",
            "192.0.2.10",
        ),
        (
            "tcp:[2001:db8:1::10]:8080",
            "allow",
            "allow tcp:[2001:db8:1::10]:8080",
            "--allow tcp:[2001:db8:1::10]:8080",
            "[2001:db8:1::10]",
            "[2001:db8:1::10]",
        ),
        (
            "udp:127.0.0.9:1",
            "deny",
            "deny host",
            "host (shipped, line 16)",
            "host",
            "127.0.0.0/8",
        ),
        (
            "udp:[2001:db8:3::5]:1",
            "deny",
            "deny host",
            "host (shipped, line 16)",
            "host",
            "[2001:db8:3::5]",
        ),
        (
            "udp:127.0.0.53:53",
            "allow",
            "allow dns",
            "host (shipped, line 12)",
            "dns",
            "127.0.0.53",
        ),
    ] {
        let said = scene.verdict(destination)?;
        let expected = serde_json::json!({
            "which": "", "verdict": verdict, "rule": rule, "source": source, "comment": null,
            "set": set, "member": member,
        });
        assert_eq!(said, expected, "{destination}");
    }
    let table = scene.ask(&["explain", scene.fence.name(), "tcp:10.0.2.2:22"])?;
    assert!(table.stdout.contains("loopback"), "{table:?}");
    assert!(table.stderr.contains("127.0.0.1"), "{table:?}");
    Ok(())
}

#[test]
fn a_profile_is_explained_and_checked_to_anybody() -> Result<()> {
    let scene = Scene::new("anybody", &[])?;
    let by_nobody = |words: &[&str]| -> Result<Ended> {
        let mut command = scene.world.host.command("setpriv");
        command.args(["--reuid", &NOBODY.uid.to_string(), "--clear-groups"]);
        command.arg(qfence()?).args(words);
        to_end(command)
    };
    let ended = by_nobody(&[
        "explain",
        "--json",
        "--profile",
        "locked",
        "--allow",
        "host:80",
        "tcp:192.0.2.10:80",
        "tcp:[2001:db8:1::10]:81",
    ])?;
    let said: Value = serde_json::from_str(&ended.stdout).with_context(|| format!("{ended:?}"))?;
    assert_eq!(said[0]["by_address"][0]["verdict"], "allow");
    assert_eq!(said[1]["by_address"][0]["verdict"], "deny");
    // The maps of a fence are root's.
    let ended = by_nobody(&["explain", scene.fence.name(), "tcp:192.0.2.10:80"])?;
    assert_eq!(ended.code(), Some(125), "{ended:?}");
    assert!(ended.stderr.contains("root"), "{ended:?}");

    let dir = tempfile::tempdir()?;
    workspace::make_readable(dir.path())?;
    let file = |name: &str, text: &str| -> Result<String> {
        let path = dir.path().join(name);
        fs::write(&path, text)?;
        Ok(path.display().to_string())
    };
    let good = file(
        "good.toml",
        "default = \"deny\"\n[[rule]]\ndeny = \"lan\"\n[[rule]]\nallow = [\"10.1.2.3\", \"fd00::1\"]\n",
    )?;
    let bad = file("bad.toml", "default = \"deny\"\n[[rule]]\nalow = \"lan\"\n")?;
    let ended = by_nobody(&["policy", "check", &good, "locked", "internet-only"])?;
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    assert_eq!(ended.stdout.lines().count(), 3, "{ended:?}");
    assert!(ended.stderr.contains("can never match"), "{ended:?}");
    let ended = by_nobody(&["policy", "check", &bad, &good])?;
    assert_eq!(ended.code(), Some(1), "{ended:?}");
    assert!(ended.stderr.contains("bad.toml:3:1"), "{ended:?}");
    Ok(())
}

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

/// Whether there is a map in the one slot of a map of the fence.
fn is_filled(fence: &Fence, map: &str) -> Result<bool> {
    let pins = Pins::new(Path::new("/sys/fs/bpf")).directory(fence.name());
    let slot = Map::from_map_data(MapData::from_pin(of_maps(&pins).join(map))?)?;
    match ArrayOfMaps::<_, MapData>::try_from(slot)?.get(&0, 0) {
        Ok(_) => Ok(true),
        Err(MapError::KeyNotFound) => Ok(false),
        Err(error) => Err(error.into()),
    }
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

//! `explain` and `policy check`: the verdict for a destination, and whether a profile is valid.

use std::fs;

use anyhow::{Context as _, Result};
use serde_json::Value;
use tests::{
    fence::qfence,
    namespace::NOBODY,
    run::{Ended, to_end},
    workspace,
    world::{BRIDGE_V4, BRIDGE_V6, GATEWAY_V4, GATEWAY_V6, HOST_V4, HOST_V6, SERVER_V4, SERVER_V6},
};

use super::{OTHER, PORT, RULES, Scene};

/// Asks `explain` for each destination, and then makes the attempt. Both must agree.
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
    // They agree after a change, and without a supervisor, too.
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
fn a_fence_whose_name_is_a_destination_is_not_mistaken_for_one() -> Result<()> {
    // The fence allows what the default policy refuses.
    let scene = Scene::new("web.prod", &["--allow", "tcp:127.0.0.1:22"])?;
    let name = scene.fence.name();
    let target = "tcp:127.0.0.1:22";
    let of_nobody = format!("setpriv --reuid {} --clear-groups", NOBODY.uid);
    for launcher in ["env", &of_nobody] {
        let mut words = launcher.split(' ');
        let mut command = scene.world.host.command(words.next().context("a program")?);
        command.args(words).arg(qfence()?);
        command.args(["explain", name, target]);
        let ended = to_end(command)?;
        assert_eq!(ended.code(), Some(125), "{launcher}: {ended:?}");
        let advice = format!("give --fence {name} before the destinations");
        assert!(ended.stderr.contains(&advice), "{launcher}: {ended:?}");
    }
    let verdict = |words: &[&str], row: usize| -> Result<Value> {
        let all = scene.json(&[&["explain", "--json"], words].concat())?;
        Ok(all[row]["by_address"][0]["verdict"].clone())
    };
    assert_eq!(verdict(&["--fence", name, target], 0)?, "allow");
    // Without the fence, behind another destination, and as no name of a fence.
    assert_eq!(verdict(&[target, name], 0)?, "deny");
    assert_eq!(verdict(&["no.fence.example", target], 1)?, "deny");
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
    // Only root can read the maps of a fence.
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

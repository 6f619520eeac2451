//! What users see of names: refused look-ups are counted, struck addresses and silent nameservers are said.

use anyhow::Context as _;
use serde_json::Value;

use super::*;

/// What a verb of qfence prints.
fn printed(world: &World, words: &[&str]) -> Result<String> {
    let mut command = world.host.command(qfence()?);
    command.args(words);
    let ended = to_end(command)?;
    ensure!(ended.code() == Some(0), "{words:?}: {ended:?}");
    Ok(ended.stdout)
}

fn json(world: &World, words: &[&str]) -> Result<Value> {
    let text = printed(world, words)?;
    serde_json::from_str(&text).context(text)
}

#[test]
fn a_refused_look_up_is_counted_where_refused_connections_are() -> Result<()> {
    let scene = Scene::new(&[("www.example.org", SERVER_V4)])?;
    let fence = locked("names-seen", &["www.example.org"])?;
    let mut shell = scene.shell(&fence)?;
    let name = fence.name();
    let world = &scene.world;
    let counts = || -> Result<[u64; 3]> {
        let all = json(world, &["ps", "--json"])?;
        let all = all.as_array().context("fences")?;
        let of_fence = all.iter().find(|of| of["name"] == name);
        let of_fence = of_fence.context("the fence")?;
        let count = |value: &Value| value.as_u64().context("a number");
        let shown = json(world, &["policy", "show", "--json", name])?;
        let rules = shown["rules"].as_array().context("rules")?;
        let rule = rules.iter().find(|rule| rule["rule"] == "deny any");
        Ok([
            count(&of_fence["lookups"]["denied"])?,
            count(&of_fence["lookups"]["allowed"])?,
            count(&rule.context("the rule")?["lookups"])?,
        ])
    };
    // The control.
    assert_eq!(counts()?, [0, 0, 0]);
    for _ in 0..2 {
        let refused = reply(&mut shell, "dns/127.0.0.53/evil.example")?;
        assert_eq!(refused, "rcode 3");
    }
    let found = reply(&mut shell, "dns/127.0.0.53/www.example.org")?;
    assert_eq!(found, SERVER_V4.to_string());
    wait_until("all are counted", || Ok(counts()? == [2, 1, 2]))?;
    let table = printed(world, &["ps"])?;
    let row = table
        .lines()
        .find(|row| row.contains(name))
        .context("row")?;
    let words: Vec<_> = row.split_whitespace().collect();
    let head = table.lines().next().unwrap_or_default();
    let column = head.split_whitespace().position(|word| word == "DENIED");
    // There was no attempt to connect.
    assert_eq!(words.get(column.context("column")?), Some(&"2"), "{table}");
    let metrics = printed(world, &["metrics"])?;
    let series = format!("fence=\"{name}\"");
    let hits = metrics.lines().find(|line| {
        line.starts_with("qfence_rule_hits_total")
            && line.contains(&series)
            && line.contains("rule=\"deny any\"")
            && line.contains("layer=\"lookup\"")
    });
    assert!(hits.is_some_and(|hits| hits.ends_with(" 2")), "{metrics}");
    // The record has them by name.
    let logged = |dest: &str| printed(world, &["logs", name, "--dest", dest]);
    wait_until("they are on record", || {
        Ok(logged("evil.example")?.contains("lookup evil.example A"))
    })?;
    assert_eq!(logged("*.evil.example")?, "");
    Ok(())
}

#[test]
fn a_name_of_one_label_is_refused_by_a_word_of_its_own() -> Result<()> {
    let scene = Scene::new(&[("printer", SERVER_V4)])?;
    let fence = locked("one-label", &["any", "www.example.org"])?;
    let mut shell = scene.shell(&fence)?;
    assert_eq!(reply(&mut shell, "dns/127.0.0.53/printer")?, "rcode 3");
    wait_until("it is on record", || {
        let is_it = |line: &Value| line["name"] == "printer" && line["rule"] == "deny-name";
        Ok(fence.lines()?.iter().any(is_it))
    })
}

#[test]
fn what_was_struck_is_said_with_the_reason() -> Result<()> {
    let private = IpAddr::from([10, 1, 2, 3]);
    let scene = Scene::new(&[("db.example.org", private), ("www.example.org", SERVER_V4)])?;
    let fence = locked("struck", &["*.example.org"])?;
    let mut shell = scene.shell(&fence)?;
    let answer = reply(&mut shell, "dns/127.0.0.53/db.example.org")?;
    assert_eq!(answer, "no address");
    let found = reply(&mut shell, "dns/127.0.0.53/www.example.org")?;
    assert_eq!(found, SERVER_V4.to_string());
    let struck = serde_json::json!([{ "address": "10.1.2.3", "set": "lan" }]);
    wait_until("it is on record", || {
        let is_it = |line: &Value| line["verdict"] == "struck" && line["struck"] == struck;
        Ok(fence.lines()?.iter().any(is_it))
    })?;
    let explained = |name: &str| -> Result<Value> {
        let words = ["explain", "--json", fence.name(), name];
        Ok(json(&scene.world, &words)?[0].take())
    };
    wait_until("it is explained", || {
        Ok(explained("db.example.org")?["struck"] == struck)
    })?;
    // The control.
    wait_until("the other one is in force", || {
        let found = explained("www.example.org")?;
        assert_eq!(found["struck"], serde_json::json!([]));
        Ok(found["addresses"][0]["address"] == SERVER_V4.to_string())
    })
}

#[test]
fn that_no_nameserver_answers_is_said_once_and_that_one_does_again() -> Result<()> {
    let world = World::new()?;
    let fence = locked("silent", &["www.example.org"])?;
    let mut shell = Shell::start(fence.command(&world.host, "sh"))?;
    for _ in 0..3 {
        let failed = reply(&mut shell, "dns/127.0.0.53/www.example.org")?;
        assert_eq!(failed, "rcode 2");
    }
    wait_until("it is on record", || {
        let is_it = |line: &Value| {
            line["verdict"] == "failed" && line["error"].as_str().is_some_and(|of| !of.is_empty())
        };
        Ok(fence.lines()?.iter().any(is_it))
    })?;
    let warning = "the fence cannot look up names (asked: 127.0.0.53)";
    wait_until("there is a warning", || {
        Ok(shell.stderr().contains(warning))
    })?;
    let _dns = Dns::start(&world.host, NAMESERVER, &[("www.example.org", SERVER_V4)])?;
    wait_until("a name is found", || {
        let found = reply(&mut shell, "dns/127.0.0.53/www.example.org")?;
        Ok(found == SERVER_V4.to_string())
    })?;
    wait_until("that is said", || {
        Ok(shell.stderr().contains("the nameservers answer again"))
    })?;
    assert_eq!(shell.stderr().matches(warning).count(), 1);
    Ok(())
}

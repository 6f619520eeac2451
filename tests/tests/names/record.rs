//! Look-ups are on record, and so are the names behind addresses.

use super::*;

#[test]
fn a_refused_look_up_is_on_record_and_connections_carry_names() -> Result<()> {
    let scene = Scene::new(&[("www.example.org", SERVER_V4)])?;
    let fence = locked("names-record", &[&format!("tcp:www.example.org:{PORT}")])?;
    let mut shell = scene.shell(&fence)?;
    for query in ["dns/127.0.0.53/evil.example", "dns/127.0.0.53/evil.example"] {
        assert_eq!(reply(&mut shell, query)?, "rcode 3");
    }
    assert_eq!(
        reply(&mut shell, "dns/127.0.0.53/www.example.org")?,
        SERVER_V4.to_string()
    );
    // The C library asks for a service of the host first, of which there is none.
    let found = shell.ask("getent ahostsv4 www.example.org")?;
    let first = found.first().cloned().unwrap_or_default();
    assert!(first.starts_with(&SERVER_V4.to_string()), "{found:?}");
    let denied = one(&mut shell, &format!("tcp/{SERVER_V4}/{OTHER}"))?;
    assert!(denied.failed_with("ECONNREFUSED"), "{denied:?}");
    let lines = || fence.lines();
    wait_until("the look-up is on record", || {
        Ok(lines()?
            .iter()
            .any(|line| line["kind"] == "lookup" && line["lookups"] == 1))
    })?;
    wait_until("the second one is counted", || {
        let of = |line: &serde_json::Value| line["lookups"].as_u64().unwrap_or(0);
        Ok(lines()?.iter().map(of).sum::<u64>() == 2)
    })?;
    let lookup = lines()?.into_iter().find(|line| line["kind"] == "lookup");
    let lookup = lookup.unwrap_or_default();
    assert_eq!(lookup["verdict"], "denied");
    assert_eq!(
        (&lookup["name"], &lookup["type"]),
        (&"evil.example".into(), &"A".into())
    );
    assert_eq!(lookup["rule"], "deny any");
    wait_until("the attempt is on record", || {
        Ok(lines()?
            .iter()
            .any(|line| line["names"][0] == "www.example.org"))
    })?;
    let of_services = lines()?.into_iter().find(|line| !line["unix"].is_null());
    assert!(of_services.is_none(), "{of_services:?}");
    Ok(())
}

#[test]
fn look_ups_are_counted_and_names_are_suggested() -> Result<()> {
    let scene = Scene::new(&[("www.example.org", SERVER_V4)])?;
    let fence = locked("names-counted", &["nothing.example.org"])?.with(&["--monitor"]);
    let mut shell = scene.shell(&fence)?;
    // Monitor mode resolves what the policy denies.
    let query = "dns/127.0.0.53/www.example.org";
    assert_eq!(reply(&mut shell, query)?, SERVER_V4.to_string());
    assert!(one(&mut shell, &format!("tcp/{SERVER_V4}/{PORT}"))?.is_reached());
    let by_qfence = |words: &[&str]| -> Result<String> {
        let mut command = scene.world.host.command(qfence()?);
        command.args(words);
        let ended = to_end(command)?;
        assert_eq!(ended.code(), Some(0), "{ended:?}");
        Ok(ended.stdout)
    };
    wait_until("the look-up is counted", || {
        let counts = by_qfence(&["metrics"])?;
        let series = format!(
            "qfence_lookups_total{{fence=\"{}\",result=\"would-deny\"}} 1",
            fence.name()
        );
        Ok(counts.contains(&series))
    })?;
    let profile = by_qfence(&["policy", "suggest", fence.name()])?;
    let rule = format!("allow = \"tcp:www.example.org:{PORT}\"");
    assert!(profile.contains(&rule), "{profile}");
    wait_until("it is on record", || {
        let is_it =
            |line: &serde_json::Value| line["verdict"] == "would-deny" && line["kind"] == "lookup";
        Ok(fence.lines()?.iter().any(is_it))
    })
}

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
    Ok(())
}

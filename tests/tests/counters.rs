//! What `ps` says a fence has counted is what happened, to the last packet.

use std::{net::SocketAddr, process::Command};

use anyhow::{Context as _, Result};
use serde_json::Value;
use tests::{
    fence::{Fence, qfence},
    listener::Listener,
    probe,
    shell::Shell,
    world::{SERVER_V4, World},
};

/// IPv4's and UDP's headers, in bytes.
const HEADERS: u64 = 20 + 8;

/// What `ps` says.
fn ps(options: &[&str]) -> Result<String> {
    probe::output(Command::new(qfence()?).arg("ps").args(options))
}

/// The fence as `ps --json` shows it.
fn listed(fence: &Fence) -> Result<Value> {
    let all: Vec<Value> = serde_json::from_str(&ps(&["--json"])?)?;
    let found = all.into_iter().find(|row| row["name"] == fence.name());
    found.context("the fence is not listed")
}

fn number(of: &Value, name: &str) -> Result<u64> {
    of[name].as_u64().with_context(|| format!("{name} in {of}"))
}

fn flood(shell: &mut Shell, count: u64, attempt: &str) -> Result<()> {
    let probe = probe::program()?;
    let said = shell.ask(&format!("{} --flood {count} {attempt}", probe.display()))?;
    let floods: Vec<probe::Flood> = probe::read_lines(&said.join("\n"))?;
    assert_eq!(floods.iter().map(|flood| flood.count).sum::<u64>(), count);
    Ok(())
}

#[test]
fn ps_counts_what_was_refused_and_what_was_allowed() -> Result<()> {
    const REFUSED: u64 = 1234;
    const ALLOWED: usize = 56;
    let world = World::new()?;
    let address = SocketAddr::new(SERVER_V4, 7007);
    let server = Listener::udp(&world.internet, address)?;
    let fence = Fence::new("counted")?;
    let mut shell = Shell::start(fence.command(&world.host, "sh"))?;

    let at_rest = listed(&fence)?;
    for name in ["refused", "monitored", "first", "repeated", "lost"] {
        assert_eq!(number(&at_rest["attempts"], name)?, 0, "{at_rest}");
    }
    for way in ["sent", "refused", "received"] {
        for name in ["connects", "packets", "bytes"] {
            assert_eq!(number(&at_rest[way], name)?, 0, "{at_rest}");
        }
    }

    flood(&mut shell, REFUSED, "tcp/127.0.0.1/9")?;
    let after = listed(&fence)?;
    let attempts = &after["attempts"];
    assert_eq!(number(attempts, "refused")?, REFUSED, "{after}");
    assert_eq!(number(attempts, "first")?, 1, "{after}");
    assert_eq!(number(attempts, "repeated")?, REFUSED - 1, "{after}");
    assert_eq!(number(&after["refused"], "connects")?, REFUSED, "{after}");
    assert_eq!(number(&after["sent"], "packets")?, 0, "{after}");

    // Each waits for its answer.
    let attempt = format!("udp/{SERVER_V4}/{}", address.port());
    let outcomes = shell.attempt(&[attempt.as_str(); ALLOWED])?;
    assert!(
        outcomes.iter().all(probe::ProbeResult::is_reached),
        "{outcomes:?}"
    );
    assert_eq!(server.arrivals().len(), ALLOWED);
    let allowed = u64::try_from(ALLOWED)?;
    let after = listed(&fence)?;
    let sent = &after["sent"];
    assert_eq!(number(sent, "packets")?, allowed, "{after}");
    let payload = number(sent, "bytes")? - allowed * HEADERS;
    assert!(payload > 0 && payload.is_multiple_of(allowed), "{after}");
    assert_eq!(number(&after["received"], "packets")?, allowed, "{after}");
    assert_eq!(number(&after["attempts"], "refused")?, REFUSED, "{after}");

    let table = ps(&[])?;
    let row = table
        .lines()
        .find(|line| line.split_whitespace().next() == Some(fence.name()))
        .context("a row")?;
    assert!(row.split_whitespace().any(|word| word == "1234"), "{table}");
    Ok(())
}

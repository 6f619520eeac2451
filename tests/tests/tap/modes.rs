//! What the record says of frames, and how options change what becomes of them.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tests::{
    fence::{Fence, qfence},
    run::{to_end, wait_until, without_sudo},
    shell::Shell,
    tap::{
        Header, Link,
        answer::Answer,
        scene::{self, GATEWAY_V4, SERVER_V4, TAP},
    },
};

use super::{
    bed::{Bed, GUEST_MAC, fence, named},
    matrix::kind,
    row::Row,
    stack::Guest,
    table,
};

fn bed() -> Result<(Bed, Vec<Row>)> {
    let kind = kind(Link::Bridged, Header::None, false);
    Ok((scene::bed(kind)?, table::rows(kind)))
}

/// The lines of the log.
fn lines(fence: &Fence) -> Result<Vec<Value>> {
    let text = std::fs::read_to_string(fence.log()).unwrap_or_default();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let lines = whole.lines().map(serde_json::from_str);
    Ok(lines.collect::<Result<_, _>>()?)
}

/// Waits for a line with these fields.
fn await_line(fence: &Fence, shell: &Shell, fields: &[(&str, &str)]) -> Result<Value> {
    let mut found = None;
    let waited = wait_until("the line is there", || {
        found = lines(fence)?
            .into_iter()
            .find(|line| fields.iter().all(|(name, value)| line[name] == *value));
        Ok(found.is_some())
    });
    match (waited, found) {
        (Ok(()), Some(line)) => Ok(line),
        _ => anyhow::bail!("{fields:?}: {:#?}\n{}", lines(fence)?, shell.stderr()),
    }
}

#[test]
fn each_reason_of_a_refusal_is_on_record() -> Result<()> {
    let (mut bed, rows) = bed()?;
    let (fence, shell) = fence(&bed.scene, "reasons", &[])?;
    for (name, rule, hook) in [
        ("udp to 10.50.0.1", "deny host", "frame"),
        ("tcp to fd50::1", "deny host", "frame"),
        ("arp for 10.50.0.1", "deny host", "frame"),
        ("LLDP to the host", "deny-frame", "frame"),
        ("a datagram from another MAC address", "deny-mac", "frame"),
        (
            "udp that is translated to another address",
            "deny-local-in",
            "local_in",
        ),
    ] {
        let row = named(&rows, name)?;
        let before = lines(&fence)?.len();
        let outcome = bed.send(row, |outcome| row.is_held(outcome))?;
        ensure!(row.is_held(&outcome), "{name}: {outcome}");
        let line = await_line(&fence, &shell, &[("rule", rule), ("hook", hook)])?;
        ensure!(line["interface"] == TAP, "{name}: {line}");
        ensure!(line["verdict"] == "denied", "{name}: {line}");
        wait_until("there is a line for it", || {
            Ok(lines(&fence)?.len() > before)
        })?;
        if hook == "frame" && rule != "deny-mac" {
            ensure!(line["source_mac"] == GUEST_MAC, "{name}: {line}");
        }
    }
    let udp = await_line(
        &fence,
        &shell,
        &[
            ("protocol", "udp"),
            ("destination", "10.50.0.1"),
            ("hook", "frame"),
        ],
    )?;
    ensure!(udp["port"] == 8080, "{udp}");
    // What layer 2 dropped, after its translation.
    await_line(
        &fence,
        &shell,
        &[
            ("destination", "10.50.0.1"),
            ("hook", "local_in"),
            ("protocol", "udp"),
        ],
    )?;
    Ok(())
}

/// Has the host translate an address, which the first layer allows, to one of its own.
fn translate(there: &Guest) -> Result<()> {
    let rules = format!(
        "table ip many {{ chain before {{ type nat hook prerouting priority dstnat; \
         ip daddr {SERVER_V4} udp dport 2000-2999 dnat to {GATEWAY_V4}; }}; }}"
    );
    let mut nft = there.scene.host.command("nft");
    nft.arg(rules);
    let made = to_end(nft)?;
    ensure!(made.code() == Some(0), "{made:?}");
    Ok(())
}

/// Sends a datagram to so many ports of that address, from one on.
fn send(there: &Guest, first: u64, count: u64) -> Result<()> {
    let mut bash = there.guest.command("bash");
    let last = first + count - 1;
    bash.arg("-c").arg(format!(
        "for port in $(seq {first} {last}); do echo >/dev/udp/{SERVER_V4}/$port; done"
    ));
    let sent = to_end(bash)?;
    ensure!(sent.code() == Some(0), "{sent:?}");
    Ok(())
}

/// What the second layer drops is within the limits of all lines, and every drop is counted.
#[test]
fn many_drops_of_the_second_layer_are_summed_up_in_few_lines() -> Result<()> {
    const PORTS: u64 = 600;
    let there = Guest::new(kind(Link::Routed, Header::Virtio, false))?;
    let (fence, shell) = fence(&there.scene, "many", &[])?;
    translate(&there)?;
    let drops = || -> Result<(u64, BTreeMap<String, u64>)> {
        let (mut all, mut kinds) = (0, BTreeMap::new());
        for line in lines(&fence)? {
            all += line["count"].as_u64().context("a count")?;
            let kind = line["kind"].as_str().context("a kind")?;
            *kinds.entry(kind.to_owned()).or_default() += 1;
        }
        Ok((all, kinds))
    };
    // The control: a few have a line each.
    send(&there, 2900, 3)?;
    wait_until("three are on record", || Ok(drops()?.0 == 3))?;
    ensure!(drops()?.1 == BTreeMap::from([("attempt".to_owned(), 3)]));
    send(&there, 2000, PORTS)?;
    let waited = wait_until("all are on record", || Ok(drops()?.0 == PORTS + 3));
    let (all, kinds) = drops()?;
    waited.with_context(|| format!("{all} in {kinds:?}\n{}", shell.stderr()))?;
    let count = |kind: &str| kinds.get(kind).copied().unwrap_or_default();
    // They may be read in two or three parts, one a second.
    ensure!((1..=3).contains(&count("folded")), "{kinds:?}");
    ensure!((50..=3 + 3 * 93).contains(&count("attempt")), "{kinds:?}");
    Ok(())
}

/// The next reader knows how many attempts on record are none of the fence's own, and so how many of those are lost.
#[test]
fn drops_of_the_second_layer_hide_no_loss_from_the_next_reader() -> Result<()> {
    const OWN: u64 = 9000;
    let there = Guest::new(kind(Link::Routed, Header::Virtio, false))?;
    let (fence, mut shell) = fence(&there.scene, "beside", &[])?;
    translate(&there)?;
    send(&there, 2000, 5)?;
    wait_until("five are on record", || Ok(lines(&fence)?.len() == 5))?;
    shell.kill_supervisor()?;
    // More than there is room for.
    shell.ask(&format!(
        "bash -c 'for port in $(seq 1001 {}); do echo >/dev/udp/127.0.0.1/$port; done' 2>/dev/null; echo",
        1000 + OWN
    ))?;
    let read = || -> Result<Vec<Value>> {
        let mut logs = there.scene.host.command(qfence()?);
        logs.args(["logs", "--json", fence.name()]);
        let text = to_end(logs)?.stdout;
        let lines = text.lines().map(serde_json::from_str);
        Ok(lines.collect::<Result<_, _>>()?)
    };
    let lines = read()?;
    let count = |kind: Option<&str>| -> u64 {
        let of = |line: &&Value| kind.is_none_or(|kind| line["kind"] == kind);
        let counts = lines.iter().filter(of);
        counts.filter_map(|line| line["count"].as_u64()).sum()
    };
    ensure!(count(Some("lost")) > 100, "control: nothing is lost");
    ensure!(count(None) == OWN + 5, "{} in all", count(None));
    // Nothing is reported twice.
    ensure!(read()?.len() == lines.len());
    Ok(())
}

/// Without a MAC address in the options the first frame determines it.
#[test]
fn the_first_frame_determines_the_guests_address() -> Result<()> {
    let (mut bed, rows) = bed()?;
    let fence = Fence::new("learns")?.with(&["--device", TAP]);
    let mut command = fence.command(&bed.scene.host, "sh");
    without_sudo(&mut command);
    let shell = Shell::start(command)?;
    let wrong = bed.fenced(&rows)?;
    ensure!(wrong.is_empty(), "{}\n{}", wrong.join("\n"), shell.stderr());
    Ok(())
}

#[test]
fn a_refusal_is_what_the_options_say() -> Result<()> {
    let (mut bed, rows) = bed()?;
    for (option, tcp, udp) in [
        ("refused", &[Answer::Reset][..], &[Answer::Prohibited][..]),
        ("unreachable", &[Answer::Reset], &[Answer::Error]),
        ("drop", &[], &[]),
    ] {
        let (_fence, shell) = fence(&bed.scene, option, &["--deny-with", option])?;
        for (name, answers) in [
            ("tcp to 10.50.0.1", tcp),
            ("tcp to fd50::1", tcp),
            ("udp to 10.50.0.1", udp),
            ("udp to fd50::1", udp),
        ] {
            let outcome = bed.send(named(&rows, name)?, |outcome| outcome.answers == answers)?;
            ensure!(
                outcome.answers == answers && outcome.arrived.delivered == 0,
                "{option}: {name}: {outcome}\n{}",
                shell.stderr()
            );
        }
    }
    Ok(())
}

/// Monitor mode lets through what the policy denies, and records it.
#[test]
fn a_monitored_fence_lets_frames_through() -> Result<()> {
    let (mut bed, rows) = bed()?;
    let (fence, shell) = fence(&bed.scene, "monitors", &["--monitor"])?;
    for name in [
        "tcp to 192.168.122.1",
        "udp to 10.50.0.1",
        "ping to fd50::1",
        "udp to 192.168.122.255",
    ] {
        let row = named(&rows, name)?;
        let outcome = bed.send(row, |outcome| row.shows(outcome))?;
        ensure!(row.shows(&outcome), "{name}: {outcome}\n{}", shell.stderr());
    }
    await_line(
        &fence,
        &shell,
        &[
            ("verdict", "would-deny"),
            ("destination", "10.50.0.1"),
            ("rule", "deny host"),
        ],
    )?;
    Ok(())
}

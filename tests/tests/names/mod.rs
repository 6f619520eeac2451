//! Rules by name: what is looked up in the fence is what opens, on the ports of its rule, and nothing else.

mod changed;
mod clients;
mod expired;
mod flood;
mod guest;
mod nameservers;
mod record;
mod seen;

use std::{
    net::IpAddr,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use qfence_common::resolved::Resolved;
use qfence_user::{
    base::clock::since_boot,
    kernel::{pins::Pins, resolved::Addresses},
};
use tests::{
    dns::Dns,
    fence::{Fence, qfence},
    listener::Listeners,
    probe::ProbeResult,
    run::{HANG, to_end, wait_until},
    shell::Shell,
    world::{SERVER_V4, SERVER_V6, World},
};

/// Where the host's own resolver listens, as its resolv.conf says.
const NAMESERVER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 53));
const PORT: u16 = 8443;
const OTHER: u16 = 8080;

/// A host with a resolver, and an internet with a server at two ports.
struct Scene {
    world: World,
    dns: Dns,
    _server: Vec<Listeners>,
}

impl Scene {
    fn new(records: &[(&str, IpAddr)]) -> Result<Self> {
        let world = World::new()?;
        let dns = Dns::start(&world.host, NAMESERVER, records)?;
        let servers = [PORT, OTHER].map(|port| Listeners::everywhere(&world.internet, port));
        Ok(Self {
            world,
            dns,
            _server: servers.into_iter().collect::<Result<_>>()?,
        })
    }

    fn set(&self, fence: &Fence, rules: &[&str]) -> Result<String> {
        set(&self.world, fence, rules)
    }

    fn shell(&self, fence: &Fence) -> Result<Shell> {
        Shell::start(fence.command(&self.world.host, "sh"))
    }
}

fn one(shell: &mut Shell, attempt: &str) -> Result<ProbeResult> {
    let mut results = shell.attempt(&[attempt])?;
    Ok(results.remove(0))
}

/// The answer to a query. On a busy machine the supervisor may not run for five seconds; until it does, the programs refuse
/// queries (`deny-unled` in docs/kernel.md), and another process may not have the port. Such a query is asked again.
fn reply(shell: &mut Shell, query: &str) -> Result<String> {
    let deadline = Instant::now() + HANG;
    let mut result = one(shell, query)?;
    while result.failed_with("ECONNREFUSED") && Instant::now() < deadline {
        result = one(shell, query)?;
    }
    Ok(result
        .reply
        .unwrap_or_else(|| format!("{:?} {:?}", result.ending, result.errno)))
}

fn locked(label: &str, rules: &[&str]) -> Result<Fence> {
    let allow: Vec<&str> = rules.iter().flat_map(|rule| ["--allow", rule]).collect();
    let fence = Fence::new(label)?.with(&["--user", "nobody", "--profile", "locked"]);
    Ok(fence.with(&allow))
}

/// Changes the policy of a fence. Returns what `set` reports.
fn set(world: &World, fence: &Fence, rules: &[&str]) -> Result<String> {
    let mut command = world.host.command(qfence()?);
    command.args(["set", fence.name()]).args(rules);
    let ended = to_end(command)?;
    ensure!(ended.code() == Some(0), "{ended:?}");
    Ok(ended.stderr)
}

#[test]
fn what_is_looked_up_is_reached_on_the_ports_of_its_rule() -> Result<()> {
    let scene = Scene::new(&[("www.example.org", SERVER_V4), ("other.example", SERVER_V4)])?;
    let fence = locked("names", &[&format!("tcp:www.example.org:{PORT}")])?;
    let mut shell = scene.shell(&fence)?;
    let (wanted, other) = (
        format!("tcp/{SERVER_V4}/{PORT}"),
        format!("tcp/{SERVER_V4}/{OTHER}"),
    );
    // Who was not asked for is not open.
    assert!(one(&mut shell, &wanted)?.failed_with("ECONNREFUSED"));
    // Whatever nameserver is asked, by UDP and TCP.
    for query in [
        "dns/127.0.0.53/www.example.org",
        "dns-tcp/127.0.0.53/www.example.org",
        "dns/198.51.100.99/WWW.Example.ORG",
        "dns-tcp/198.51.100.99/www.example.org",
        "dns/2001:db8:7::99/www.example.org",
    ] {
        assert_eq!(reply(&mut shell, query)?, SERVER_V4.to_string(), "{query}");
    }
    assert!(one(&mut shell, &wanted)?.is_reached(), "{}", shell.stderr());
    assert!(one(&mut shell, &other)?.failed_with("ECONNREFUSED"));
    for query in [
        "dns/127.0.0.53/other.example",
        "dns/198.51.100.99/example.org",
    ] {
        assert_eq!(reply(&mut shell, query)?, "rcode 3", "{query}");
    }
    let queries = scene.dns.queries()?.join("\n");
    assert!(queries.contains("www.example.org"), "{queries}");
    assert!(!queries.contains("other.example"), "{queries}");
    Ok(())
}

#[test]
fn no_name_leads_to_the_host() -> Result<()> {
    let host = World::host_addresses()[0];
    let private = IpAddr::from([10, 1, 2, 3]);
    let records = [
        ("rebound.example.org", host),
        ("loopback.example.org", IpAddr::from([127, 0, 0, 1])),
        ("lan.example.org", private),
    ];
    let scene = Scene::new(&records)?;
    let _service = Listeners::everywhere(&scene.world.host, PORT)?;
    for (options, of_lan) in [(&[][..], "no address"), (&["--names-private"], "10.1.2.3")] {
        let fence = locked("rebound", &["*.example.org"])?.with(options);
        let mut shell = scene.shell(&fence)?;
        for (name, expected) in [
            ("rebound.example.org", "no address"),
            ("loopback.example.org", "no address"),
            ("lan.example.org", of_lan),
        ] {
            let answer = reply(&mut shell, &format!("dns/127.0.0.53/{name}"))?;
            assert_eq!(answer, expected, "{name} {options:?}");
        }
        for address in [host, IpAddr::from([127, 0, 0, 1])] {
            let refused = one(&mut shell, &format!("tcp/{address}/{PORT}"))?;
            assert!(
                refused.failed_with("ECONNREFUSED"),
                "{address}: {refused:?}"
            );
        }
    }
    Ok(())
}

#[test]
fn an_earlier_rule_by_address_decides() -> Result<()> {
    let scene = Scene::new(&[("www.example.org", SERVER_V4)])?;
    let rule = format!("tcp:www.example.org:{PORT}");
    let server = SERVER_V4.to_string();
    for (first, is_reached) in [("--deny", false), ("--allow", true)] {
        let fence = Fence::new("order")?.with(&["--user", "nobody", "--profile", "locked"]);
        let fence = fence.with(&[first, &server, "--allow", &rule]);
        let mut shell = scene.shell(&fence)?;
        assert_eq!(reply(&mut shell, "dns/127.0.0.53/www.example.org")?, server);
        let result = one(&mut shell, &format!("tcp/{server}/{PORT}"))?;
        assert_eq!(result.is_reached(), is_reached, "{first}: {result:?}");
    }
    Ok(())
}

#[test]
fn without_a_supervisor_names_are_not_resolved() -> Result<()> {
    let scene = Scene::new(&[("www.example.org", SERVER_V4)])?;
    let fence = locked("orphan-names", &["www.example.org"])?;
    let mut shell = scene.shell(&fence)?;
    let query = "dns/127.0.0.53/www.example.org";
    assert_eq!(reply(&mut shell, query)?, SERVER_V4.to_string());
    shell.kill_supervisor()?;
    wait_until("the resolver is gone", || {
        Ok(one(&mut shell, query)?.failed_with("ECONNREFUSED"))
    })?;
    // What was resolved stays open until its time is over. Its use does not move the last end, which is an hour away at most.
    let pins = Pins::new(Path::new("/sys/fs/bpf")).directory(fence.name());
    let addresses = Addresses::open(&pins)?;
    let before = addresses.list()?;
    assert!(one(&mut shell, &format!("tcp/{SERVER_V4}/{PORT}"))?.is_reached());
    let after = addresses.list()?;
    let ends = |all: &[(IpAddr, Resolved)]| -> Vec<_> {
        all.iter()
            .map(|(address, of)| (*address, of.until_ns))
            .collect()
    };
    assert_eq!(ends(&before), ends(&after));
    let hour = u64::try_from(Duration::from_hours(1).as_nanos())?;
    assert_eq!(after.len(), 1);
    assert!(after[0].1.until_ns <= since_boot()? + hour, "{after:?}");
    let unasked = one(&mut shell, &format!("tcp/{SERVER_V6}/{PORT}"))?;
    assert!(unasked.failed_with("ECONNREFUSED"), "{unasked:?}");
    Ok(())
}

#[test]
fn others_cannot_ask_the_resolver_of_a_fence() -> Result<()> {
    let scene = Scene::new(&[("www.example.org", SERVER_V4)])?;
    let fence = locked("strangers", &["www.example.org"])?;
    let mut shell = scene.shell(&fence)?;
    let query = "dns/127.0.0.53/www.example.org";
    assert_eq!(reply(&mut shell, query)?, SERVER_V4.to_string());
    // The resolver is the only UDP socket of the host in this range.
    let sockets = scene.world.host.command("ss").args(["-Hlun"]).output()?;
    let text = String::from_utf8_lossy(&sockets.stdout).into_owned();
    let own = text
        .split_whitespace()
        .find(|word| word.starts_with("127.83."))
        .map(str::to_owned);
    let own = own.unwrap_or_else(|| panic!("{text}"));
    let (address, port) = own.split_once(':').unwrap_or_default();
    let question = format!(
        "import socket\n\
         s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n\
         s.settimeout(2)\n\
         q = bytes.fromhex('51fe01000001000000000000') + b'\\x03www\\x07example\\x03org\\x00\\x00\\x01\\x00\\x01'\n\
         s.sendto(q, ('{address}', {port}))\n\
         try:\n    print(len(s.recv(512)))\n\
         except OSError as error:\n    print(type(error).__name__)\n"
    );
    // A process outside gets no answer.
    let outside = scene
        .world
        .host
        .command("python3")
        .args(["-c", &question])
        .output()?;
    let outside = String::from_utf8_lossy(&outside.stdout).trim().to_owned();
    assert!(
        matches!(outside.as_str(), "timeout" | "TimeoutError"),
        "{outside}"
    );
    // The fence itself does not reach it by its own address.
    let direct = one(&mut shell, &format!("udp/{address}/{port}"))?;
    assert!(!direct.is_reached(), "{direct:?}");
    Ok(())
}

//! The host's IPv4 addresses as a NAT64 translator of its network spells them: the translator sends the packets back to
//! the host.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};
use ipnet::Ipv6Net;
use qfence_user::{
    policy::nat64::{IPV4_ONLY, WELL_KNOWN, spell},
    verify::translator::Translator,
};
use tests::{
    dns::Dns,
    fence::{Fence, qfence},
    listener::Listeners,
    nameserver::Nameserver,
    probe::{self, ProbeResult},
    run::{to_end, wait_until},
    shell::Shell,
    world::{HOST_V4, SERVER_V4, World},
};

use crate::attach::scene::{Place, attach, remove};

const PORT: u16 = 8080;
/// An address of the host that comes up late.
const LATE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 77);
/// Nameservers on the host: a list of the translators that each reveals.
const FIRST: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 53));
const SECOND: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 54));

fn v4(address: IpAddr) -> Result<Ipv4Addr> {
    match address {
        IpAddr::V4(v4) => Ok(v4),
        IpAddr::V6(v6) => anyhow::bail!("{v6} is no IPv4 address"),
    }
}

fn spelled(prefix: Ipv6Net, address: Ipv4Addr) -> Result<Ipv6Addr> {
    spell(prefix, address).context("a prefix of a translator")
}

/// A resolver that reveals a translator.
fn resolver(world: &World, address: IpAddr, prefix: Ipv6Net) -> Result<Dns> {
    let revealed = IpAddr::V6(spelled(prefix, IPV4_ONLY[0])?);
    Dns::start(&world.host, address, &[("ipv4only.arpa", revealed)])
}

/// A translator for the host and a server of the internet. It really leads to the host.
fn translator(world: &World, prefix: Ipv6Net) -> Result<Translator> {
    let targets = [v4(HOST_V4)?, v4(SERVER_V4)?];
    let started = Translator::start(&world.internet, prefix, &targets, PORT)?;
    let address = spelled(prefix, v4(HOST_V4)?)?;
    let reached = world
        .host
        .run(|| Ok(TcpStream::connect((address, PORT)).is_ok()))?;
    assert!(reached, "the control: {address} leads to the host");
    Ok(started)
}

fn is_refused(outcome: &ProbeResult) -> bool {
    outcome.failed_with("ECONNREFUSED")
}

/// Attempts on an IPv4 address under a prefix.
fn attempts(shell: &mut Shell, prefix: Ipv6Net, address: Ipv4Addr) -> Result<Vec<ProbeResult>> {
    let address = spelled(prefix, address)?;
    let [udp, tcp] = ["udp", "tcp"].map(|protocol| format!("{protocol}/{address}/{PORT}"));
    shell.attempt(&[&udp, &tcp])
}

#[test]
fn the_hosts_addresses_under_the_well_known_prefix_are_the_host() -> Result<()> {
    let world = World::new()?;
    let services = Listeners::everywhere(&world.host, PORT)?;
    let _server = Listeners::everywhere(&world.internet, PORT + 1)?;
    let _translator = translator(&world, WELL_KNOWN)?;
    wait_until("the control arrives", || {
        Ok(!services.arrivals().is_empty())
    })?;
    let fence = Fence::new("nat64")?.with(&["--user", "nobody"]);
    let mut shell = Shell::start(fence.command(&world.host, "sh"))?;
    let outcomes = attempts(&mut shell, WELL_KNOWN, v4(HOST_V4)?)?;
    assert!(outcomes.iter().all(is_refused), "{outcomes:?}");
    fence.await_refusal(|refusal| refusal.destination == "64:ff9b::c000:20a")?;
    // Other computers are reached by the translator.
    let neighbour = attempts(&mut shell, WELL_KNOWN, Ipv4Addr::new(198, 51, 100, 8))?;
    assert!(!neighbour.iter().any(is_refused), "{neighbour:?}");
    // An address that comes up later.
    let before = attempts(&mut shell, WELL_KNOWN, LATE)?;
    assert!(!before.iter().any(is_refused), "{before:?}");
    world.add_host_address(LATE.into(), "lo")?;
    wait_until("the new address is refused", || {
        Ok(attempts(&mut shell, WELL_KNOWN, LATE)?
            .iter()
            .all(is_refused))
    })?;
    assert_eq!(services.arrivals().len(), 1, "the control alone");
    Ok(())
}

#[test]
fn a_translator_that_a_nameserver_reveals_is_found_and_followed() -> Result<()> {
    let world = World::new()?;
    let _services = Listeners::everywhere(&world.host, PORT)?;
    for (index, [one, other]) in [
        ["2001:db8:64::/96", "2001:db8:6400::/40"],
        ["2001:db8:6401::/48", "2001:db8:6402:100::/56"],
        ["2001:db8:6403:6::/64", "fd64:db8::/32"],
    ]
    .iter()
    .enumerate()
    {
        let (one, other): (Ipv6Net, Ipv6Net) = (one.parse()?, other.parse()?);
        let _first = resolver(&world, FIRST, one)?;
        let _second = resolver(&world, SECOND, other)?;
        let _translators = [translator(&world, one)?, translator(&world, other)?];
        world.write_resolv_conf(&format!("nameserver {FIRST}\n"))?;
        let fence = Fence::new(&format!("nat64-{index}"))?.with(&["--user", "nobody"]);
        let mut shell = Shell::start(fence.command(&world.host, "sh"))?;
        wait_until("the host under the prefix is refused", || {
            let outcomes = attempts(&mut shell, one, v4(HOST_V4)?)?;
            Ok(outcomes.iter().all(is_refused))
        })
        .with_context(|| shell.stderr())?;
        let server = attempts(&mut shell, one, Ipv4Addr::new(198, 51, 100, 8))?;
        assert!(!server.iter().any(is_refused), "{server:?}");
        // The network changes, and with it the nameserver.
        world.write_resolv_conf(&format!("nameserver {SECOND}\n"))?;
        wait_until("the host under the other prefix is refused", || {
            let outcomes = attempts(&mut shell, other, v4(HOST_V4)?)?;
            Ok(outcomes.iter().all(is_refused))
        })
        .with_context(|| shell.stderr())?;
    }
    Ok(())
}

/// Shorter than the time that a start waits, and longer than it takes otherwise.
const LATER: Duration = Duration::from_millis(130);

/// A nameserver that reveals a translator after a while.
fn slow_resolver(world: &World, prefix: Ipv6Net) -> Result<Nameserver> {
    let revealed = IpAddr::V6(spelled(prefix, IPV4_ONLY[0])?);
    let nameserver =
        Nameserver::start(&[(&world.host, SocketAddr::new(FIRST, 53))], move |asked| {
            thread::sleep(LATER);
            Ok(vec![asked.addresses(60, &[revealed])?])
        })?;
    world.write_resolv_conf(&format!("nameserver {FIRST}\n"))?;
    Ok(nameserver)
}

#[test]
fn the_first_call_of_a_command_knows_a_translator_that_was_revealed_meanwhile() -> Result<()> {
    let world = World::new()?;
    let prefix: Ipv6Net = "2001:db8:64::/96".parse()?;
    let services = Listeners::everywhere(&world.host, PORT)?;
    let _translator = translator(&world, prefix)?;
    wait_until("the control arrives", || {
        Ok(!services.arrivals().is_empty())
    })?;
    let resolver = slow_resolver(&world, prefix)?;
    let fence = Fence::new("nat64-later")?.with(&["--user", "nobody"]);
    let to =
        |address| -> Result<String> { Ok(format!("tcp/{}/{PORT}", spelled(prefix, address)?)) };
    let mut command = fence.command(&world.host, probe::program()?);
    command.args([to(v4(HOST_V4)?)?, to(v4(SERVER_V4)?)?]);
    let outcomes = probe::run_command(&mut command)?;
    assert!(resolver.knows("ipv4only.arpa"), "the control");
    let [host, server] = &outcomes[..] else {
        anyhow::bail!("{outcomes:?}");
    };
    assert!(is_refused(host), "{outcomes:?}");
    fence.await_refusal(|refusal| refusal.rule == "deny host")?;
    assert!(!is_refused(server), "the control: {outcomes:?}");
    assert_eq!(services.arrivals().len(), 1, "the control alone");
    Ok(())
}

#[test]
fn a_fence_is_not_in_force_before_it_knows_a_translator_that_was_revealed_meanwhile() -> Result<()>
{
    let world = World::new()?;
    let prefix: Ipv6Net = "2001:db8:64::/96".parse()?;
    let _services = Listeners::everywhere(&world.host, PORT)?;
    let _translator = translator(&world, prefix)?;
    let _resolver = slow_resolver(&world, prefix)?;
    let fence = Fence::new("nat64-attached")?;
    let place = Place::new(&fence)?;
    let mut shell = place.shell(&world.host)?;
    let host = v4(HOST_V4)?;
    let before = attempts(&mut shell, prefix, host)?;
    assert!(!before.iter().any(is_refused), "the control: {before:?}");
    // No supervisor follows the nameservers.
    let path = place.path().display().to_string();
    let ended = attach(&fence, &world.host, &["--cgroup", &path, "--detach"])?;
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    let outcomes = attempts(&mut shell, prefix, host)?;
    assert!(outcomes.iter().all(is_refused), "{outcomes:?}");
    remove(&fence)
}

#[test]
fn a_nameserver_that_does_not_answer_delays_no_start_for_long() -> Result<()> {
    let world = World::new()?;
    let prefix: Ipv6Net = "2001:db8:64::/96".parse()?;
    let _services = Listeners::everywhere(&world.host, PORT)?;
    let _translator = translator(&world, prefix)?;
    // It receives the query, and is silent.
    let mute = world.host.run(|| Ok(UdpSocket::bind((FIRST, 53))?))?;
    mute.set_read_timeout(Some(tests::run::HANG))?;
    let fence = Fence::new("mute")?.with(&["--user", "nobody"]);
    let mut shell = Shell::start(fence.command(&world.host, "sh"))?;
    let mut query = [0; 512];
    let length = mute.recv(&mut query).context("no query")?;
    assert!(
        query[..length]
            .windows(8)
            .any(|window| window == b"ipv4only"),
        "{:?}",
        &query[..length]
    );
    // The well-known prefix needs no answer.
    let known = attempts(&mut shell, WELL_KNOWN, v4(HOST_V4)?)?;
    assert!(known.iter().all(is_refused), "{known:?}");
    let unknown = attempts(&mut shell, prefix, v4(HOST_V4)?)?;
    assert!(!unknown.iter().any(is_refused), "the control: {unknown:?}");
    let _second = resolver(&world, SECOND, prefix)?;
    world.write_resolv_conf(&format!("nameserver {SECOND}\n"))?;
    wait_until("the host under the prefix is refused", || {
        let outcomes = attempts(&mut shell, prefix, v4(HOST_V4)?)?;
        Ok(outcomes.iter().all(is_refused))
    })
    .with_context(|| shell.stderr())
}

#[test]
fn explain_and_a_change_without_a_supervisor_know_translators_too() -> Result<()> {
    let world = World::new()?;
    let prefix: Ipv6Net = "2001:db8:64::/96".parse()?;
    let _resolver = resolver(&world, FIRST, prefix)?;
    let address = spelled(prefix, v4(HOST_V4)?)?.to_string();
    let explain = |words: &[&str]| {
        let mut command = world.host.command(qfence()?);
        command.arg("explain").args(words).arg(&address);
        to_end(command)
    };
    let ended = explain(&["--"])?;
    assert!(!ended.stdout.contains("allow any"), "{ended:?}");
    assert!(ended.stderr.contains("is 192.0.2.10, as"), "{ended:?}");

    let fence = Fence::new("nat64-orphan")?.with(&["--user", "nobody"]);
    world.write_resolv_conf("")?;
    let shell = Shell::start(fence.command(&world.host, "sh"))?;
    let ended = explain(&[fence.name()])?;
    assert!(ended.stdout.contains("allow any"), "the control: {ended:?}");
    shell.kill_supervisor()?;
    world.write_resolv_conf(&format!("nameserver {FIRST}\n"))?;
    let mut command = world.host.command(qfence()?);
    command.args(["set", fence.name(), "--deny", "any:25"]);
    let ended = to_end(command)?;
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    let ended = explain(&[fence.name()])?;
    assert!(!ended.stdout.contains("allow any"), "{ended:?}");
    Ok(())
}

/// Whether the policy in force refuses the host's address under a prefix.
fn is_host(world: &World, fence: &Fence, prefix: Ipv6Net) -> Result<bool> {
    let address = spelled(prefix, v4(HOST_V4)?)?.to_string();
    fence.is_refused(&world.host, &address)
}

/// A nameserver that says that there is no translator.
fn without_translator(world: &World, address: IpAddr) -> Result<Nameserver> {
    let at = SocketAddr::new(address, 53);
    Nameserver::start(&[(&world.host, at)], |asked| {
        Ok(vec![asked.addresses(60, &[])?])
    })
}

#[test]
fn a_change_without_a_supervisor_keeps_translators_if_no_nameserver_answers() -> Result<()> {
    let world = World::new()?;
    let prefix: Ipv6Net = "2001:db8:64::/96".parse()?;
    let first = resolver(&world, FIRST, prefix)?;
    world.write_resolv_conf(&format!("nameserver {FIRST}\n"))?;
    let fence = Fence::new("nat64-kept")?.with(&["--user", "nobody"]);
    let shell = Shell::start(fence.command(&world.host, "sh"))?;
    wait_until("it is known", || is_host(&world, &fence, prefix))?;
    shell.kill_supervisor()?;
    drop(first);
    let deny = |rule: &str| -> Result<()> {
        let mut command = world.host.command(qfence()?);
        command.args(["set", fence.name(), "--deny", rule]);
        let ended = to_end(command)?;
        anyhow::ensure!(ended.code() == Some(0), "{ended:?}");
        Ok(())
    };
    deny("any:25")?;
    assert!(is_host(&world, &fence, prefix)?);
    // The control: an answer counts.
    let _second = without_translator(&world, FIRST)?;
    deny("any:26")?;
    assert!(!is_host(&world, &fence, prefix)?);
    Ok(())
}

#[test]
fn a_translator_stays_if_one_of_its_nameservers_does_not_answer() -> Result<()> {
    let world = World::new()?;
    let prefix: Ipv6Net = "2001:db8:64::/96".parse()?;
    let first = resolver(&world, FIRST, prefix)?;
    let second = without_translator(&world, SECOND)?;
    world.write_resolv_conf(&format!("nameserver {FIRST}\nnameserver {SECOND}\n"))?;
    let fence = Fence::new("nat64-one")?.with(&["--user", "nobody"]);
    let _shell = Shell::start(fence.command(&world.host, "sh"))?;
    wait_until("it is known", || is_host(&world, &fence, prefix))?;
    drop(first);
    let before = second.asked().len();
    // They are asked again.
    world.add_host_address("2001:db8:9::9".parse()?, "lo")?;
    wait_until("the other one is asked", || {
        Ok(second.asked().len() > before)
    })?;
    // Longer than an answer is waited for.
    thread::sleep(Duration::from_secs(3));
    assert!(is_host(&world, &fence, prefix)?);
    // The control: as soon as both answer, it counts.
    let _third = without_translator(&world, FIRST)?;
    world.add_host_address("2001:db8:9::10".parse()?, "lo")?;
    wait_until("it is the internet", || {
        Ok(!is_host(&world, &fence, prefix)?)
    })
}

//! A nameserver of the host behind NAT: the host redirects its port to another one, as Docker does in containers.

use std::net::IpAddr;

use anyhow::{Context as _, Result, ensure};
use tests::{
    fence::{Fence, qfence},
    listener::Listeners,
    probe::{self, ProbeResult, Race},
    run::to_end,
    shell::Shell,
    world::{HOST_V4, SERVER_V4, World},
};

/// Docker's nameserver, and the port on which it listens; Docker chooses one at random.
pub(crate) const NAMESERVER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 11));
pub(crate) const BEHIND: u16 = 35353;
const OTHER: u16 = 8080;

/// Redirects the nameserver's port as Docker does, in the host's namespace.
pub(crate) fn redirect(world: &World) -> Result<()> {
    for arguments in [
        format!(
            "-A OUTPUT -d {NAMESERVER}/32 -p tcp --dport 53 -j DNAT --to-destination {NAMESERVER}:{BEHIND}"
        ),
        format!(
            "-A OUTPUT -d {NAMESERVER}/32 -p udp --dport 53 -j DNAT --to-destination {NAMESERVER}:{BEHIND}"
        ),
        format!(
            "-A POSTROUTING -s {NAMESERVER}/32 -p tcp --sport {BEHIND} -j SNAT --to-source :53"
        ),
        format!(
            "-A POSTROUTING -s {NAMESERVER}/32 -p udp --sport {BEHIND} -j SNAT --to-source :53"
        ),
    ] {
        let mut command = world.host.command("iptables");
        command.args(["-t", "nat"]).args(arguments.split(' '));
        let ended = to_end(command)?;
        ensure!(ended.code() == Some(0), "iptables {arguments}: {ended:?}");
    }
    Ok(())
}

#[test]
fn a_nameserver_whose_port_is_redirected_works_and_nothing_else_of_its_address() -> Result<()> {
    let world = World::new()?;
    world.write_resolv_conf(&format!("nameserver {NAMESERVER}\n"))?;
    redirect(&world)?;
    let behind = Listeners::everywhere(&world.host, BEHIND)?;
    let other = Listeners::everywhere(&world.host, OTHER)?;
    let questions =
        ["udp", "udp-connected", "tcp"].map(|method| format!("{method}/{NAMESERVER}/53"));
    let questions = questions.each_ref().map(String::as_str);
    // The control: nothing listens on port 53, so these are redirected.
    let mut outside = Shell::start(world.host.command("sh"))?;
    let outcomes = outside.attempt(&questions)?;
    assert!(outcomes.iter().all(ProbeResult::is_reached), "{outcomes:?}");

    let fence = Fence::new("redirected")?.with(&["--user", "nobody"]);
    let mut shell = Shell::start(fence.command(&world.host, "sh"))?;
    let before = behind.arrivals().len();
    let outcomes = shell.attempt(&questions)?;
    assert!(outcomes.iter().all(ProbeResult::is_reached), "{outcomes:?}");
    assert_eq!(fence.refusals()?, []);
    // The ports behind it and beside it are not.
    let arrived = behind.arrivals().len();
    assert!(arrived > before);
    for port in [BEHIND, OTHER] {
        for method in ["udp", "udp-connected", "tcp"] {
            let outcomes = shell.attempt(&[&format!("{method}/{NAMESERVER}/{port}")])?;
            assert!(
                outcomes[0].failed_with("ECONNREFUSED"),
                "{method} {port}: {outcomes:?}"
            );
        }
        let outcomes = shell.attempt(&[&format!("udp/127.0.0.1/{port}")])?;
        assert!(outcomes[0].failed_with("ECONNREFUSED"), "{outcomes:?}");
    }
    assert_eq!(behind.arrivals().len(), arrived);
    assert_eq!(other.arrivals().len(), 0);

    // A policy without nameservers refuses it.
    let mut command = world.host.command(qfence()?);
    command.args(["set", fence.name(), "--deny", "dns"]);
    assert_eq!(to_end(command)?.code(), Some(0));
    let outcomes = shell.attempt(&questions)?;
    assert!(
        !outcomes.iter().any(ProbeResult::is_reached),
        "{outcomes:?}"
    );
    Ok(())
}

#[test]
fn a_rule_for_another_port_applies_to_a_socket_that_asked_too() -> Result<()> {
    let world = World::new()?;
    world.write_resolv_conf(&format!("nameserver {NAMESERVER}\n"))?;
    redirect(&world)?;
    let _behind = Listeners::everywhere(&world.host, BEHIND)?;
    let allowed = Listeners::everywhere(&world.host, OTHER)?;
    let rule = format!("udp:127.0.0.1:{OTHER}");
    let fence = Fence::new("redirected-rule")?.with(&["--user", "nobody", "--allow", &rule]);
    let script = format!(
        "import socket\n\
         s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n\
         s.settimeout(5)\n\
         for to in ('{NAMESERVER}', 53), ('127.0.0.1', {OTHER}):\n\
         \x20   s.sendto(b'x', to)\n\
         \x20   print(s.recvfrom(99)[1][1])\n"
    );
    let mut command = fence.command(&world.host, "python3");
    command.args(["-c", &script]);
    let ended = to_end(command)?;
    assert_eq!(ended.stdout, format!("53\n{OTHER}\n"), "{ended:?}");
    assert_eq!(allowed.arrivals().len(), 1);
    Ok(())
}

/// Makes a socket for each line and does what is in it: `to` sends to a destination, `connect` connects to it and `send`
/// sends by the connected socket. Prints the result of the last step of each line.
const STEPS: &str = "
import errno, socket, sys
for line in sys.argv[1:]:
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    for step in line.split(', '):
        how, *end = step.split()
        end = (end[0], int(end[1])) if end else None
        try:
            if how == 'to': made.sendto(b'x', end)
            elif how == 'connect': made.connect(end)
            else: made.send(b'x')
            result = 'done'
        except OSError as error:
            result = errno.errorcode[error.errno]
    print(result)
";

/// The host's NAT makes the same packets as a socket whose address and port are changed while it sends.
#[test]
fn a_socket_that_named_another_port_asks_no_nameserver() -> Result<()> {
    let world = World::new()?;
    world.write_resolv_conf(&format!("nameserver {NAMESERVER}\n"))?;
    redirect(&world)?;
    let behind = Listeners::everywhere(&world.host, BEHIND)?;
    let other = Listeners::everywhere(&world.host, OTHER)?;
    // A transparent proxy.
    let mut iptables = world.host.command("iptables");
    let proxy = format!(
        "-t nat -A OUTPUT -d {SERVER_V4}/32 -p udp --dport 443 -j DNAT --to-destination {NAMESERVER}:{OTHER}"
    );
    iptables.args(proxy.split(' '));
    assert_eq!(to_end(iptables)?.code(), Some(0));
    let ask = format!("to {NAMESERVER} 53");
    let connect = format!("connect {NAMESERVER} 53");
    let lines = [
        (ask.clone(), true),
        (format!("{ask}, {ask}"), true),
        (format!("{connect}, send"), true),
        // Several nameservers.
        (format!("to {SERVER_V4} 53, {ask}"), true),
        (format!("connect {SERVER_V4} 53, {connect}, send"), true),
        (format!("to {SERVER_V4} 9, {ask}"), false),
        (format!("{ask}, to {SERVER_V4} 9, {ask}"), false),
        (format!("connect {SERVER_V4} 9, {connect}, send"), false),
        (format!("connect {SERVER_V4} 9, {ask}"), false),
        (format!("to {SERVER_V4} 443"), false),
        (format!("{ask}, to {SERVER_V4} 443"), false),
    ];
    let run = |mut command: std::process::Command| -> Result<Vec<String>> {
        command.args(["-c", STEPS]);
        command.args(lines.iter().map(|(line, _)| line));
        let ended = to_end(command)?;
        ensure!(ended.code() == Some(0), "{ended:?}");
        Ok(ended.stdout.lines().map(str::to_owned).collect())
    };
    let control = run(world.host.command("python3"))?;
    assert!(control.iter().all(|result| result == "done"), "{control:?}");
    let arrived = [behind.arrivals().len(), other.arrivals().len()];
    assert_eq!(arrived[1], 2, "control");

    let fence = Fence::new("other-port")?.with(&["--user", "nobody"]);
    let results = run(fence.command(&world.host, "python3"))?;
    for ((line, is_open), result) in lines.iter().zip(&results) {
        let expected = if *is_open { "done" } else { "EPERM" };
        assert_eq!(result, expected, "{line}: {results:?}");
    }
    assert_eq!(other.arrivals().len(), arrived[1]);
    Ok(())
}

/// A datagram leaves for the address of a nameserver and the port of another destination, and no call named the two together.
#[test]
fn a_socket_that_is_connected_while_it_sends_reaches_no_other_port() -> Result<()> {
    const MOST: usize = 30;
    let world = World::new()?;
    let nameserver = "127.0.0.53";
    let service = Listeners::everywhere(&world.host, OTHER)?;
    let torn = format!("{HOST_V4}/{nameserver}/{SERVER_V4}/{OTHER}");
    let run = |mut command: std::process::Command| -> Result<Race> {
        command.args(["--for-ms", "2000", "--torn", &torn]);
        let output = probe::output(&mut command)?;
        probe::read_lines(&output)?.pop().context("one line")
    };
    // The control: without a fence some of them arrive, sooner or later.
    let program = probe::program()?;
    let mut rounds = 0;
    while service.arrivals().is_empty() {
        ensure!(rounds < MOST, "control: nothing was torn");
        run(world.host.command(&program))?;
        rounds += 1;
    }
    let before = service.arrivals().len();
    for _ in 0..2 * rounds + 1 {
        let fence = Fence::new("torn")?.with(&["--user", "nobody"]);
        let raced = run(fence.command(&world.host, &program))?;
        assert!(raced.opened > 1000 && raced.sent > 1000, "{raced:?}");
    }
    assert_eq!(service.arrivals().len(), before);
    Ok(())
}

#[test]
fn explain_and_doctor_name_a_nameserver_that_is_redirected() -> Result<()> {
    let world = World::new()?;
    world.write_resolv_conf(&format!("nameserver {NAMESERVER}\n"))?;
    let mut command = world.host.command(qfence()?);
    command.args(["explain", &format!("udp:{NAMESERVER}:53")]);
    let ended = to_end(command).context("explain")?;
    assert!(
        ended.stderr.contains("NAT redirects this port"),
        "{ended:?}"
    );
    let mut command = world.host.command(qfence()?);
    command.args(["doctor", "--json"]);
    let ended = to_end(command)?;
    assert!(ended.stdout.contains("\"nameservers\""), "{ended:?}");
    assert!(ended.stdout.contains("127.0.0.11"), "{ended:?}");
    Ok(())
}

//! What counts as the host besides its kernel's addresses: /etc/qfence/host.toml, and the gateways.

use anyhow::{Context as _, Result};
use serde_json::Value;
use tests::{
    fence::{Fence, qfence, unique_name},
    listener::Listeners,
    probe::{self, ProbeResult},
    run::{to_end, wait_until},
    shell::Shell,
    world::{GATEWAY_V4, GATEWAY_V6, SERVER_V4, SERVER_V6, World},
};

const PORT: u16 = 8080;
const FILE: &str = "qfence/host.toml";

fn is_refused(outcome: &ProbeResult) -> bool {
    outcome.failed_with("ECONNREFUSED")
}

fn reaches(shell: &mut Shell, addresses: [std::net::IpAddr; 2]) -> Result<Vec<ProbeResult>> {
    let attempts = addresses.map(|address| format!("tcp/{address}/{PORT}"));
    shell.attempt(&[&attempts[0], &attempts[1]])
}

#[test]
fn addresses_in_the_file_are_the_host_and_changes_are_followed() -> Result<()> {
    let world = World::new()?;
    let _server = Listeners::everywhere(&world.internet, PORT)?;
    let servers = [SERVER_V4, SERVER_V6];
    let text = format!("host = [\"{SERVER_V4}\", \"2001:db8:2::/64\"]\n");
    world.write_etc(FILE, &text)?;
    let fence = Fence::new("file")?.with(&["--user", "nobody"]);
    let mut shell = Shell::start(fence.command(&world.host, "sh"))?;
    let outcomes = reaches(&mut shell, servers)?;
    assert!(outcomes.iter().all(is_refused), "{outcomes:?}");
    let explained = |fence: &Fence| {
        let mut command = world.host.command(qfence()?);
        command.args(["explain", fence.name(), &SERVER_V4.to_string()]);
        to_end(command)
    };
    let ended = explained(&fence)?;
    // Packets through loopback are refused in any case.
    assert!(!ended.stdout.contains("allow any"), "{ended:?}");
    assert!(
        ended
            .stderr
            .contains("host.toml counts 198.51.100.7 as the host"),
        "{ended:?}"
    );
    let mut command = world.host.command(qfence()?);
    command.args(["policy", "show", fence.name(), "--json"]);
    let shown = to_end(command)?;
    assert!(shown.stdout.contains("\"198.51.100.7\""), "{shown:?}");

    // The control: without the file they are reached.
    world.write_etc(FILE, "# nothing\n")?;
    wait_until("the servers are reached", || {
        Ok(reaches(&mut shell, servers)?
            .iter()
            .all(ProbeResult::is_reached))
    })?;
    // Invalid content changes nothing, and is reported once.
    world.write_etc(FILE, &text)?;
    wait_until("the servers are refused", || {
        Ok(reaches(&mut shell, servers)?.iter().all(is_refused))
    })?;
    world.write_etc(FILE, "host = [\"example.org\"]\n")?;
    let error = "stay as they were: /etc/qfence/host.toml:1:9: ";
    wait_until("it is reported", || Ok(shell.stderr().contains(error)))
        .with_context(|| shell.stderr())?;
    let outcomes = reaches(&mut shell, servers)?;
    assert!(outcomes.iter().all(is_refused), "{outcomes:?}");
    world.write_etc(FILE, "")?;
    wait_until("the servers are reached", || {
        Ok(reaches(&mut shell, servers)?
            .iter()
            .all(ProbeResult::is_reached))
    })?;
    wait_until("the end of the error is reported", || {
        Ok(shell.stderr().contains("can be read again"))
    })?;
    assert_eq!(
        shell.stderr().matches(error).count(),
        1,
        "{}",
        shell.stderr()
    );
    Ok(())
}

/// A listener on all addresses is found for any destination, also for one that is elsewhere.
#[test]
fn self_does_not_lead_to_an_address_in_the_file() -> Result<()> {
    let world = World::new()?;
    let server = Listeners::everywhere(&world.internet, PORT)?;
    let methods = ["tcp", "udp", "udp-connected"];
    let attempts: Vec<String> = [SERVER_V4, SERVER_V6]
        .iter()
        .flat_map(|address| methods.map(|method| format!("{method}/{address}/{PORT}")))
        .collect();
    let attempts: Vec<&str> = attempts.iter().map(String::as_str).collect();
    let run = |label: &str| -> Result<Vec<ProbeResult>> {
        let udp = format!("udp:self:{PORT}");
        let fence =
            Fence::new(label)?.with(&["--user", "nobody", "--allow", "self", "--allow", &udp]);
        let mut shell = Shell::start(fence.command(&world.host, "sh"))?;
        let program = probe::program()?;
        let services = format!("tcp/{PORT} echo-udp/{PORT}");
        shell.tell(&format!("{} --serve {services} &", program.display()))?;
        assert_eq!(shell.next_line()?, "serving");
        // The positive control: both are reached here.
        let own = shell.attempt(&[
            &format!("tcp/192.0.2.10/{PORT}"),
            &format!("udp/192.0.2.10/{PORT}"),
        ])?;
        assert!(own.iter().all(ProbeResult::is_reached), "{own:?}");
        let outcomes = shell.attempt(&attempts)?;
        shell.tell("kill $!; exit")?;
        Ok(outcomes)
    };
    // The control: without the file they are reached.
    let outcomes = run("self-control")?;
    assert!(outcomes.iter().all(ProbeResult::is_reached), "{outcomes:?}");
    let arrived = server.arrivals().len();
    assert!(arrived > 0);
    world.write_etc(
        FILE,
        &format!("host = [\"{SERVER_V4}\", \"{SERVER_V6}\"]\n"),
    )?;
    let outcomes = run("self-file")?;
    let is_open = ProbeResult::is_reached;
    assert!(!outcomes.iter().any(is_open), "{outcomes:?}");
    assert_eq!(server.arrivals().len(), arrived);
    Ok(())
}

#[test]
fn nothing_is_started_with_an_invalid_file() -> Result<()> {
    let world = World::new()?;
    world.write_etc(FILE, "host = [\n  \"tcp:192.0.2.1:80\",\n]\n")?;
    let mut command = world.host.command(qfence()?);
    command.args([
        "exec",
        "--name",
        &unique_name("bad-file"),
        "--user",
        "nobody",
        "--",
        "echo",
        "ran",
    ]);
    let ended = to_end(command)?;
    assert_eq!((ended.code(), &*ended.stdout), (Some(125), ""), "{ended:?}");
    assert!(
        ended.stderr.contains("/etc/qfence/host.toml:2:3: "),
        "{ended:?}"
    );
    let mut command = world.host.command(qfence()?);
    command.args(["doctor", "--json"]);
    let ended = to_end(command)?;
    assert!(ended.stdout.contains("host.toml:2:3: "), "{ended:?}");
    Ok(())
}

#[test]
fn gateways_are_denied_and_followed() -> Result<()> {
    let world = World::new()?;
    let _server = Listeners::everywhere(&world.internet, PORT)?;
    let gateways = [GATEWAY_V4, GATEWAY_V6];
    let servers = [SERVER_V4, SERVER_V6];
    // The control: by default a gateway is no host.
    let fence = Fence::new("gateway")?.with(&["--user", "nobody"]);
    let mut shell = Shell::start(fence.command(&world.host, "sh"))?;
    let outcomes = reaches(&mut shell, gateways)?;
    assert!(outcomes.iter().all(ProbeResult::is_reached), "{outcomes:?}");
    let mut command = world.host.command(qfence()?);
    command.args(["set", fence.name(), "--deny", "gateway"]);
    assert_eq!(to_end(command)?.code(), Some(0));
    let outcomes = reaches(&mut shell, gateways)?;
    assert!(outcomes.iter().all(is_refused), "{outcomes:?}");
    let outcomes = reaches(&mut shell, servers)?;
    assert!(outcomes.iter().all(ProbeResult::is_reached), "{outcomes:?}");
    // Another default route has another gateway.
    world.internet.ip("address add 192.0.2.9/24 dev eth0")?;
    let other = "tcp/192.0.2.9/8080";
    assert!(shell.attempt(&[other])?[0].is_reached());
    world.host_ip("route replace default via 192.0.2.9")?;
    wait_until("the other gateway is refused", || {
        Ok(is_refused(&shell.attempt(&[other])?[0]))
    })?;
    wait_until("the first is reached", || {
        Ok(reaches(&mut shell, gateways)?[0].is_reached())
    })?;
    drop(shell);

    // For all fences, by the file.
    world.write_etc(FILE, "host = [\"gateway\"]\n")?;
    let fence = Fence::new("gateway-file")?.with(&["--user", "nobody"]);
    let mut shell = Shell::start(fence.command(&world.host, "sh"))?;
    assert!(is_refused(&shell.attempt(&[other])?[0]));
    Ok(())
}

#[test]
fn doctor_names_the_machine_around_this_one() -> Result<()> {
    let world = World::new()?;
    let mut command = world.host.command(qfence()?);
    command.args(["doctor", "--json"]);
    let ended = to_end(command)?;
    let findings: Value =
        serde_json::from_str(&ended.stdout).with_context(|| ended.stdout.clone())?;
    let text = findings.to_string();
    assert!(text.contains("\"machine around\""), "{text}");
    // Whether this machine is a guest depends on where the test runs.
    let is_guest = !text.contains("no sign of being a guest");
    assert_eq!(
        is_guest,
        text.contains("192.0.2.1, which fences do not count"),
        "{text}"
    );
    Ok(())
}

//! `--log-allowed`: what was let through is on record, by destination, and makes a profile.

use std::{fs, path::Path, process::Stdio};

use anyhow::{Context as _, Result, ensure};
use qfence_common::{Flow, FlowKey};
use qfence_user::kernel::Maps;
use serde_json::Value;
use tests::{
    fence::{Fence, qfence},
    probe,
    process::Process,
    run::{to_end, wait_until},
    shell::Shell,
    workspace,
    world::{SERVER_V4, SERVER_V6, World},
};

const PORT: u16 = 8080;
/// What the server gets and what it answers, in bytes.
const ASKED: usize = 1_000;
const ANSWERED: usize = 200_000;

/// Answers each connection.
fn serve(world: &World) -> Result<Process> {
    let script = format!(
        "
import socket, threading
def answer(one):
    got = 0
    while got < {ASKED}:
        got += len(one.recv({ASKED}))
    one.sendall(b'x' * {ANSWERED})
    one.close()
listener = socket.create_server(('::', {PORT}), family=socket.AF_INET6, dualstack_ipv6=True)
print('ready', flush=True)
while True:
    threading.Thread(target=answer, args=(listener.accept()[0],)).start()
"
    );
    let mut command = world.internet.command("python3");
    command.args(["-c", &script]).stdout(Stdio::piped());
    let mut server = Process::spawn(command)?;
    let stdout = server.child().stdout.take().context("a pipe")?;
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut line)?;
    ensure!(line == "ready\n", "control: {line}");
    Ok(server)
}

/// Words for a shell that ask the server.
fn ask(address: &str) -> String {
    format!(
        "python3 -c '
import socket
one = socket.create_connection((\"{address}\", {PORT}))
one.sendall(b\"x\" * {ASKED})
got = 0
while part := one.recv(65536):
    got += len(part)
print(got)'"
    )
}

fn lines(fence: &Fence) -> Result<Vec<Value>> {
    let text = fs::read_to_string(fence.log())?;
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole
        .lines()
        .map(|line| Ok(serde_json::from_str(line)?))
        .collect()
}

/// The sum of a field over the lines about a destination.
fn sum(lines: &[Value], destination: &str, port: u16, field: &str) -> u64 {
    let of = |line: &&Value| {
        matches!(line["kind"].as_str(), Some("allowed" | "traffic"))
            && line["destination"] == destination
            && line["port"] == port
    };
    let all = lines.iter().filter(of);
    all.filter_map(|line| line[field].as_u64()).sum()
}

#[test]
fn what_was_let_through_is_on_record_with_its_bytes() -> Result<()> {
    let world = World::new()?;
    let _server = serve(&world)?;
    let fence = Fence::new("allowed")?.with(&["--user", "nobody", "--log-allowed"]);
    let mut shell = Shell::start(fence.command(&world.host, "bash"))?;
    let (v4, v6) = (SERVER_V4.to_string(), SERVER_V6.to_string());
    let probe = probe::program()?.display().to_string();
    for _ in 0..2 {
        for address in [&v4, &v6] {
            assert_eq!(shell.ask(&ask(address))?, [ANSWERED.to_string()]);
        }
    }
    shell.ask(&format!(
        "{probe} --timeout-ms 100 udp/{SERVER_V4}/9 ping/{SERVER_V4} tcp/127.0.0.1/9"
    ))?;
    // The first line comes at once, not at the end.
    wait_until("each destination is on record", || {
        let lines = lines(&fence)?;
        let first = |destination: &str, port: u16| {
            lines.iter().any(|line| {
                line["kind"] == "allowed"
                    && line["destination"] == destination
                    && line["port"] == port
            })
        };
        Ok(first(&v4, PORT) && first(&v6, PORT) && first(&v4, 9) && first(&v4, 0))
    })?;
    assert_eq!(shell.ask(&ask(&v4))?, [ANSWERED.to_string()]);
    let mut logs = world.host.command(qfence()?);
    logs.args(["logs", fence.name(), "--dest", &format!("tcp:{v4}")]);
    let shown = to_end(logs)?.stdout;
    assert!(
        shown.contains(&format!(" allowed tcp {v4}:{PORT} calls ")),
        "{shown}"
    );
    assert!(!shown.contains("127.0.0.1"), "{shown}");
    shell.tell("exit 0")?;
    assert_eq!(shell.wait_for_code()?, 0, "{}", shell.stderr());

    let lines = lines(&fence)?;
    for (address, asked) in [(&v4, 3), (&v6, 2)] {
        let of = |field: &str| sum(&lines, address, PORT, field);
        assert_eq!(of("calls"), asked, "{address} {lines:?}");
        let headers = 100_000;
        for (field, least) in [
            ("sent_bytes", asked * ASKED as u64),
            ("received_bytes", asked * ANSWERED as u64),
        ] {
            let bytes = of(field);
            assert!((least..least + headers).contains(&bytes), "{field} {bytes}");
        }
        assert!(of("sent_packets") > 0 && of("received_packets") > 0);
    }
    assert_eq!(sum(&lines, &v4, 9, "calls"), 1, "{lines:?}");
    assert_eq!(sum(&lines, &v4, 0, "sent_packets"), 1, "{lines:?}");
    // The host is not among them, and refusals are on record as ever.
    assert_eq!(sum(&lines, "127.0.0.1", 9, "calls"), 0);
    let refused = |line: &&Value| line["kind"] == "attempt";
    assert_eq!(lines.iter().filter(refused).count(), 1, "{lines:?}");
    let (mut seq, mut total) = (0, 0);
    for line in &lines {
        seq += 1;
        total += line["count"].as_u64().context("a count")?;
        assert_eq!(
            (line["seq"].as_u64(), line["total"].as_u64()),
            (Some(seq), Some(total))
        );
    }
    assert!(
        !shell.stderr().contains("not in the log"),
        "{}",
        shell.stderr()
    );
    Ok(())
}

#[test]
fn a_profile_of_what_was_let_through_allows_it_and_nothing_else() -> Result<()> {
    let world = World::new()?;
    let _server = serve(&world)?;
    let (v4, v6) = (SERVER_V4.to_string(), SERVER_V6.to_string());
    let fence = Fence::new("suggested")?.with(&["--user", "nobody", "--log-allowed"]);
    let mut shell = Shell::start(fence.command(&world.host, "bash"))?;
    assert_eq!(shell.ask(&ask(&v4))?, [ANSWERED.to_string()]);
    let mut command = world.host.command(qfence()?);
    command.args(["policy", "suggest", "--allowed", fence.name()]);
    let suggested = to_end(command)?;
    assert_eq!(suggested.code(), Some(0), "{suggested:?}");
    shell.tell("exit 0")?;
    assert_eq!(shell.wait_for_code()?, 0);

    let dir = tempfile::tempdir()?;
    workspace::make_readable(dir.path())?;
    let profile = dir.path().join("allowed.toml");
    fs::write(&profile, &suggested.stdout)?;
    let profile = profile.display().to_string();
    let fence = Fence::new("only")?.with(&["--user", "nobody", "--profile", &profile]);
    let mut shell = Shell::start(fence.command(&world.host, "bash"))?;
    assert_eq!(
        shell.ask(&ask(&v4))?,
        [ANSWERED.to_string()],
        "{suggested:?}"
    );
    let other = shell.attempt(&[&format!("tcp/{v6}/{PORT}"), &format!("tcp/{v4}/9")])?;
    for outcome in other {
        assert!(outcome.failed_with("ECONNREFUSED"), "{outcome:?}");
    }
    fence.await_refusal(|refusal| refusal.destination == v6)?;

    // A fence that does not log it has no such lines, and no such profile.
    assert!(lines(&fence)?.iter().all(|line| line["kind"] != "allowed"));
    let mut command = world.host.command(qfence()?);
    command.args(["policy", "suggest", "--allowed", fence.name()]);
    let refused = to_end(command)?;
    assert_eq!(refused.code(), Some(125), "{refused:?}");
    assert!(refused.stderr.contains("--log-allowed"), "{refused:?}");
    Ok(())
}

#[test]
fn connections_that_the_fence_accepts_are_not_among_its_destinations() -> Result<()> {
    let world = World::new()?;
    let fence = Fence::new("accepts")?.with(&["--user", "nobody", "--log-allowed"]);
    let mut shell = Shell::start(fence.command(&world.host, "bash"))?;
    let _server = serve(&world)?;
    shell.tell(&format!(
        "python3 -c '
import socket
listener = socket.create_server((\"\", {PORT}))
print(\"ready\", flush=True)
one = listener.accept()[0]
one.sendall(b\"x\" * {ANSWERED})
one.close()'"
    ))?;
    assert_eq!(shell.next_line()?, "ready");
    let client = format!(
        "import socket
one = socket.create_connection((\"{}\", {PORT}))
got = 0
while part := one.recv(65536):
    got += len(part)
print(got)",
        tests::world::HOST_V4
    );
    let mut command = world.internet.command("python3");
    command.args(["-c", &client]);
    let ended = to_end(command)?;
    assert_eq!(ended.stdout, format!("{ANSWERED}\n"), "{ended:?}");
    // The control.
    shell.ask(&ask(&SERVER_V4.to_string()))?;
    shell.tell("exit 0")?;
    assert_eq!(shell.wait_for_code()?, 0);
    let lines = lines(&fence)?;
    let destinations: std::collections::BTreeSet<_> = lines
        .iter()
        .filter(|line| line["kind"] == "allowed")
        .filter_map(|line| line["port"].as_u64())
        .collect();
    assert_eq!(destinations, [u64::from(PORT)].into(), "{lines:?}");
    Ok(())
}

/// Sends a datagram to each of more addresses than there is room for.
const FLOOD: &str = "python3 -c '
import socket
one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for number in range(6000):
    one.sendto(b\"x\", (f\"198.18.{number >> 8}.{number & 255}\", 9))
print(\"sent\")'";

#[test]
fn a_flood_keeps_no_later_destination_off_the_record() -> Result<()> {
    let world = World::new()?;
    let _server = serve(&world)?;
    let fence = Fence::new("flooded")?.with(&["--user", "nobody", "--log-allowed"]);
    let mut shell = Shell::start(fence.command(&world.host, "bash"))?;
    let v4 = SERVER_V4.to_string();
    assert_eq!(shell.ask(FLOOD)?, ["sent"]);
    // Until there is room again, calls have no entry: the connection is made until it has one.
    wait_until("a later destination is on record", || {
        assert_eq!(shell.ask(&ask(&v4))?, [ANSWERED.to_string()]);
        Ok(sum(&lines(&fence)?, &v4, PORT, "calls") > 0)
    })?;
    shell.tell("exit 0")?;
    assert_eq!(shell.wait_for_code()?, 0, "{}", shell.stderr());
    // All calls are in some line.
    let all: u64 = lines(&fence)?
        .iter()
        .filter(|line| matches!(line["kind"].as_str(), Some("allowed" | "traffic")))
        .filter_map(|line| line["calls"].as_u64())
        .sum();
    assert!(all > 6000, "{all}");
    Ok(())
}

/// Reads all that is sent to either port.
fn drain(world: &World, ports: [u16; 2]) -> Result<Process> {
    let script = format!(
        "
import socket, threading
def read(one):
    while one.recv(1 << 20):
        pass
def serve(listener):
    while True:
        threading.Thread(target=read, args=(listener.accept()[0],)).start()
listeners = [socket.create_server(('', port)) for port in {ports:?}]
print('ready', flush=True)
for listener in listeners:
    threading.Thread(target=serve, args=(listener,)).start()
"
    );
    let mut command = world.internet.command("python3");
    command.args(["-c", &script]).stdout(Stdio::piped());
    let mut server = Process::spawn(command)?;
    let stdout = server.child().stdout.take().context("a pipe")?;
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut line)?;
    ensure!(line == "ready\n", "control: {line}");
    Ok(server)
}

/// Without a reader, nothing else removes an entry.
#[test]
fn a_connection_whose_destination_was_forgotten_or_had_no_room_is_counted() -> Result<()> {
    const SENT: u64 = 1_000_000;
    let world = World::new()?;
    let ports = [PORT, PORT + 1];
    let _server = drain(&world, ports)?;
    let fence = Fence::new("goeson")?.with(&["--user", "nobody", "--log-allowed"]);
    let mut shell = Shell::start(fence.command(&world.host, "bash"))?;
    shell.ask("echo")?;
    shell.kill_supervisor()?;
    let mut maps = Maps::open(&Path::new("/sys/fs/bpf/qfence").join(fence.name()))?;
    let flow = |maps: &Maps, port: u16| -> Result<Option<(FlowKey, Flow)>> {
        let flows = maps.flows()?.context("it logs what it allows")?;
        let port = u32::from(port);
        Ok(flows.into_iter().find(|(key, _)| key.to.port == port))
    };
    let send = |shell: &mut Shell, number: u32| -> Result<()> {
        let said = shell.ask(&format!("head -c {SENT} /dev/zero >&{number}; echo sent"))?;
        assert_eq!(said, ["sent"]);
        Ok(())
    };

    let suggested = || -> Result<String> {
        let mut suggest = world.host.command(qfence()?);
        suggest.args(["policy", "suggest", fence.name(), "--allowed"]);
        Ok(to_end(suggest)?.stdout)
    };

    shell.ask(&format!("exec 3<>/dev/tcp/{SERVER_V4}/{PORT}; echo"))?;
    let (key, begun) = flow(&maps, PORT)?.context("an entry")?;
    assert!(begun.sent_bytes < SENT, "{begun:?}");
    let profile = suggested()?;
    assert!(profile.contains(&format!(":{PORT}\"")), "{profile}");
    assert!(!profile.contains("INCOMPLETE"), "{profile}");
    maps.forget_flow(&key)?;
    assert_eq!(flow(&maps, PORT)?, None);
    // A profile without the destination says that it lacks some.
    let profile = suggested()?;
    assert!(!profile.contains(&format!(":{PORT}\"")), "{profile}");
    assert!(
        profile.contains("INCOMPLETE: a destination without traffic was forgotten once to"),
        "{profile}"
    );
    send(&mut shell, 3)?;
    wait_until("it is counted again", || {
        Ok(flow(&maps, PORT)?.is_some_and(|(_, flow)| flow.sent_bytes >= SENT))
    })?;

    // Its connection has no entry from the start.
    assert_eq!(shell.ask(FLOOD)?, ["sent"]);
    let (_, before) = flow(&maps, 0)?.context("that of others")?;
    shell.ask(&format!("exec 4<>/dev/tcp/{SERVER_V4}/{}; echo", ports[1]))?;
    assert_eq!(flow(&maps, ports[1])?, None, "control: there is room");
    send(&mut shell, 4)?;
    wait_until("it is counted with others", || {
        let (_, others) = flow(&maps, 0)?.context("that of others")?;
        Ok(others.sent_bytes >= before.sent_bytes + SENT
            && others.received_packets > before.received_packets)
    })?;
    Ok(())
}

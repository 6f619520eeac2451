//! TCP that only the packet layer refuses, because of NAT or a route, is refused at once and not by a time-out.

use std::{
    fs,
    io::Write as _,
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use tests::{
    fence::Fence,
    fuse::Fuse,
    listener::Listeners,
    namespace::{NOBODY, Namespace},
    probe::{self, ProbeResult},
    run::wait_until,
    shell::Shell,
    world::World,
};

const PORT: u16 = 8080;

/// Outgoing packets to these addresses go to the host.
const NAT: &str = "
table ip nat {
  chain output {
    type nat hook output priority -100;
    ip daddr 198.51.100.50 dnat to 127.0.0.1
    ip daddr 198.51.100.51 dnat to 192.0.2.10
  }
}
table ip6 nat {
  chain output {
    type nat hook output priority -100;
    ip6 daddr 2001:db8:2::50 dnat to ::1
  }
}
";

/// What only the packet layer refuses, with a time limit for each step: without the end of the connection it would be
/// reached.
const ATTEMPTS: [&str; 8] = [
    "tcp/198.51.100.50/8080",
    "tcp/198.51.100.51/8080",
    "tcp/2001:db8:2::50/8080",
    "tcp/::ffff:198.51.100.50/8080",
    "tcp/198.51.100.99/8080+src=192.0.2.10",
    "tcp/198.51.100.7/8080+dev=lo",
    "mptcp/198.51.100.50/8080",
    "tcp-uring/198.51.100.50/8080",
];

fn translate(host: &Namespace) -> Result<()> {
    let mut nft = host.command("nft");
    let mut child = nft.args(["-f", "-"]).stdin(Stdio::piped()).spawn();
    let child = child
        .as_mut()
        .ok()
        .context("start nft (package nftables)")?;
    let mut stdin = child.stdin.take().context("nft has a stdin")?;
    stdin.write_all(NAT.as_bytes())?;
    drop(stdin);
    ensure!(child.wait()?.success(), "nft refused:\n{NAT}");
    Ok(())
}

fn world() -> Result<World> {
    let world = World::new()?;
    translate(&world.host)?;
    world.host_ip("route add 198.51.100.99 dev lo")?;
    Ok(world)
}

fn attempt(shell: &mut Shell, attempt: &str) -> Result<ProbeResult> {
    let outcomes = shell.attempt(&["--timeout-ms", "20000", attempt])?;
    outcomes.into_iter().next().context("one outcome")
}

#[test]
fn they_are_ended_each_time_and_others_stay() -> Result<()> {
    let world = world()?;
    let services = Listeners::everywhere(&world.host, PORT)?;
    let server = Listeners::everywhere(&world.internet, PORT)?;
    let words = ["tcp/198.51.100.50/8080", "tcp/2001:db8:2::50/8080"];
    for outcome in probe::run_as(NOBODY, &world.host, &words)? {
        ensure!(outcome.is_reached(), "control: {outcome:?}");
    }
    let before = services.arrivals().len();
    let fence = Fence::new("syns")?.with(&["--user", "nobody"]);
    let mut shell = Shell::start(fence.command(&world.host, "sh"))?;
    for _ in 0..3 {
        for words in ATTEMPTS {
            let outcome = attempt(&mut shell, words)?;
            assert!(outcome.failed_with("ECONNABORTED"), "{words}: {outcome:?}");
        }
        // A connection that is allowed.
        let outcome = attempt(&mut shell, "tcp/198.51.100.7/8080")?;
        assert!(outcome.is_reached(), "{outcome:?}");
    }
    assert_eq!(services.arrivals().len(), before);
    assert_eq!(server.arrivals().len(), 3);
    let refusal = fence.await_refusal(|refusal| refusal.hook == "egress")?;
    assert_eq!(refusal.rule, "deny host", "{refusal:?}");
    Ok(())
}

/// Connects without waiting: to an address that does not answer, and many times to one that is refused. Prints the errors
/// of the latter, and the state of the former.
const MANY: &str = r#"
import errno, select, socket
def connecting(address):
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    made.setblocking(False)
    made.connect_ex((address, 8080))
    return made
silent = connecting("198.51.100.7")
errors = set()
made = [connecting("198.51.100.50") for _ in range(200)]
poll = select.poll()
for each in made:
    poll.register(each, select.POLLOUT)
left = {each.fileno(): each for each in made}
while left:
    ready = poll.poll(30000)
    if not ready:
        print("time out")
        break
    for number, _ in ready:
        poll.unregister(number)
        errors.add(left.pop(number).getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
print(*(errno.errorcode[error] for error in errors), silent.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
"#;

#[test]
fn many_at_once_are_ended_and_who_waits_for_an_answer_goes_on_waiting() -> Result<()> {
    let world = world()?;
    // The server does not answer.
    let drop_all = "table ip t {\n chain i {\n type filter hook input priority 0;\n tcp dport 8080 drop\n }\n}\n";
    let mut nft = world.internet.command("nft");
    let mut child = nft.args(["-f", "-"]).stdin(Stdio::piped()).spawn()?;
    let mut stdin = child.stdin.take().context("nft has a stdin")?;
    stdin.write_all(drop_all.as_bytes())?;
    drop(stdin);
    ensure!(child.wait()?.success(), "nft refused:\n{drop_all}");
    let fence = Fence::new("many-syns")?.with(&["--user", "nobody"]);
    let mut command = fence.command(&world.host, "/usr/bin/python3");
    let said = probe::output(command.args(["-c", MANY]))?;
    assert_eq!(said.trim(), "ECONNABORTED 0");
    Ok(())
}

/// The helper processes of a supervisor that end connections, and the number of all of their threads.
fn helpers(supervisor: u32) -> Result<(usize, usize)> {
    let (mut processes, mut threads) = (0, 0);
    for task in fs::read_dir(format!("/proc/{supervisor}/task"))? {
        let children = fs::read_to_string(task?.path().join("children")).unwrap_or_default();
        for child in children.split_whitespace() {
            let process = Path::new("/proc").join(child);
            let arguments = fs::read(process.join("cmdline")).unwrap_or_default();
            let tasks = fs::read_dir(process.join("task")).map_or(0, Iterator::count);
            // A process that was killed has no arguments any more. It is there as long as its threads.
            let is_helper = arguments.is_empty() && tasks > 1
                || arguments
                    .split(|byte| *byte == 0)
                    .any(|word| word == b"sock-diag");
            if is_helper {
                processes += 1;
                threads += tasks;
            }
        }
    }
    Ok((processes, threads))
}

/// The kernel waits for the lock of a socket to end its connection, and no signal ends that wait. What the fence can keep is
/// one helper with a few threads, and it is not for good.
#[test]
fn sockets_that_stay_locked_keep_one_helper_with_a_few_threads() -> Result<()> {
    const SECONDS: u64 = 24;
    // Beside those that wait: the one for requests, and the one that starts others.
    const THREADS: usize = 8 + 2;
    let world = world()?;
    let mut fuse = Fuse::on(&world.host)?;
    let fence = Fence::new("locked-syns")?.with(&["--user", "nobody"]);
    let mut shell = Shell::start(fence.command(&world.host, "sh"))?;
    let supervisor = shell.started();
    let program = probe::program()?;
    let lock = format!("198.51.100.50/{PORT}/20/{}", fuse.file().display());
    let ms = SECONDS * 1000;
    shell.tell(&format!(
        "{} --for-ms {ms} --lock {lock} &",
        program.display()
    ))?;
    let (mut processes, mut threads) = (0, 0);
    for _ in 0..SECONDS {
        assert_eq!(shell.next_line()?, "locked");
        let now = helpers(supervisor)?;
        processes = processes.max(now.0);
        threads = threads.max(now.1);
    }
    let (standing, _) = helpers(supervisor)?;
    fuse.release()?;
    assert_eq!((processes, standing), (1, 1), "{threads} threads");
    // The control: at least one of them did wait, beside the first thread.
    assert!((2..=THREADS).contains(&threads), "{threads}");
    // When it has ended, connections are refused at once again.
    wait_until("the helper ends", || Ok(helpers(supervisor)?.0 == 0))?;
    let begun = Instant::now();
    let outcome = attempt(&mut shell, "tcp/198.51.100.50/8080")?;
    assert!(outcome.failed_with("ECONNABORTED"), "{outcome:?}");
    assert!(begun.elapsed() < Duration::from_secs(5), "{outcome:?}");
    Ok(())
}

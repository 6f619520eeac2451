//! How long it takes from an attempt to its line, at the socket of a syslog daemon.

use std::{
    env,
    io::{Write as _, stdout},
    net::{Ipv4Addr, UdpSocket},
    os::unix::net::UnixDatagram,
    process::ExitCode,
    sync::mpsc,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use nix::time::{ClockId, clock_gettime};
use tests::{
    bench::{Series, quantile},
    exit::exit_code,
    fence::Fence,
    run::{HANG, to_end},
    workspace,
    world::World,
};

/// The word that makes this program the one in the fence: `COUNT` attempts, of which each is the first of
/// its kind.
pub(crate) const ATTEMPTS: &str = "--attempts";

/// Between two attempts: fewer lines a second than a log takes.
const PAUSE: Duration = Duration::from_millis(20);
/// The first port that is tried.
const FIRST: u16 = 10_000;

/// Makes attempts in a fence, and reads their lines: how late they are, and what one in a hundred exceeds, in ms.
pub(crate) fn measure(count: u16) -> Result<(Series, f64)> {
    let world = World::new()?;
    let dir = tempfile::tempdir()?;
    workspace::make_readable(dir.path())?;
    let path = dir.path().join("log");
    let socket = UnixDatagram::bind(&path)?;
    socket.set_read_timeout(Some(HANG))?;
    let (sender, arrivals) = mpsc::channel();
    thread::spawn(move || {
        let mut buffer = [0; 8192];
        while let Ok(size) = socket.recv(&mut buffer) {
            let at = now();
            let text = String::from_utf8_lossy(&buffer[..size]).into_owned();
            if sender.send((at, text)).is_err() {
                break;
            }
        }
    });
    let target = format!("syslog:{}", path.display());
    let fence = Fence::new("late")?.with(&["--log", &target]);
    let mut command = fence.command(&world.host, env::current_exe()?);
    command.args([ATTEMPTS, &count.to_string()]);
    let ended = to_end(command)?;
    ensure!(ended.code() == Some(0), "{}", ended.stderr);
    let mut late = Vec::new();
    for line in ended.stdout.lines() {
        let (port, at) = line.split_once(' ').context("a port and a time")?;
        let at: Duration = Duration::from_nanos(at.parse()?);
        let port = format!(" port=\"{port}\"");
        // Lines come in order.
        let arrived = loop {
            let (arrived, text) = arrivals.recv_timeout(HANG).context("a line is missing")?;
            if text.contains(&port) && text.contains("kind=\"attempt\"") {
                break arrived?;
            }
        };
        late.push((arrived - at).as_secs_f64() * 1000.0);
    }
    ensure!(late.len() == usize::from(count), "{} lines", late.len());
    let mut series = Series::new("from an attempt to its line", "ms");
    for late in &late {
        series.push("syslog's socket", *late);
    }
    late.sort_unstable_by(f64::total_cmp);
    Ok((series, quantile(&late, 0.99)))
}

/// In the fence: makes attempts, and prints the port and the time of each.
pub(crate) fn attempts() -> ExitCode {
    exit_code("error", attempt())
}

fn attempt() -> Result<()> {
    let count: u16 = env::args().nth(2).context("a count")?.parse()?;
    let mut out = stdout().lock();
    for port in FIRST..FIRST + count {
        thread::sleep(PAUSE);
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        let at = now()?;
        let error = socket.connect((Ipv4Addr::LOCALHOST, port)).err();
        ensure!(error.is_some(), "it is not refused");
        writeln!(out, "{port} {}", at.as_nanos())?;
    }
    Ok(())
}

/// The time since the machine started, the same in all processes.
fn now() -> Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_MONOTONIC)?.into())
}

//! An unfenced machine in the bridge of a guest: its throughput while the guest is fenced, and while it is not.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    thread::sleep,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use tests::{
    bench::{Goal, Options, Series, progress, turns},
    namespace::Namespace,
    probe::{self, Load as Done},
    shell::Shell,
    tap::{
        Header, Kind, Link, Scene, Tap,
        scene::{self, GATEWAY_V4, SERVER_V4},
    },
};

use crate::scene::{DISCARD, Fenced, SINK, SOURCE};

const UNFENCED: &str = "beside an unfenced guest";
const FENCED: &str = "beside a fenced guest";

/// After the start or the end of a fence: what the supervisor and the kernel still do for it takes a processor, and is not to be
/// in the figures.
const PAUSE: Duration = Duration::from_millis(300);

/// The throughput that the neighbour of a fenced guest must reach.
const SHARE: f64 = 0.95;

/// What the neighbour does: the name, the load, its peer, and what a thousand of its counts are a second.
const LOADS: [(&str, &str, (IpAddr, u16), &str); 5] = [
    (
        "a neighbour in the bridge, bulk TCP to the internet",
        "upload",
        (SERVER_V4, SINK),
        "MB/s",
    ),
    (
        "a neighbour in the bridge, bulk TCP from the internet",
        "download",
        (SERVER_V4, SOURCE),
        "MB/s",
    ),
    (
        "a neighbour in the bridge, bulk TCP to the host",
        "upload",
        (GATEWAY_V4, SINK),
        "MB/s",
    ),
    (
        "a neighbour in the bridge, datagrams to the internet",
        "send-udp",
        (SERVER_V4, DISCARD),
        "1000/s",
    ),
    (
        "a neighbour in the bridge, datagrams to the host",
        "send-udp",
        (GATEWAY_V4, DISCARD),
        "1000/s",
    ),
];

/// A bridge with a guest and a neighbour.
struct Setup {
    /// Makes traffic at the neighbour.
    neighbour: Shell,
    /// The guest is connected and says nothing.
    _guest: Tap,
    _servers: [Shell; 2],
    _discard: [UdpSocket; 2],
    scene: Scene,
}

impl Setup {
    fn new() -> Result<Self> {
        let scene = scene::lay_out(Kind {
            link: Link::Bridged,
            header: Header::Virtio,
            filters_bridge: false,
        })?;
        Ok(Self {
            neighbour: Shell::start(scene.neighbour.command("sh"))?,
            _guest: scene.open()?,
            _servers: [serve(&scene.host)?, serve(&scene.internet)?],
            _discard: [discard(&scene.host)?, discard(&scene.internet)?],
            scene,
        })
    }

    /// Carries a load for some milliseconds; its counts a second, in thousands of bytes or datagrams.
    #[expect(
        clippy::cast_precision_loss,
        reason = "nothing counts to 2^53 in a round"
    )]
    fn sample(&mut self, load: &str, ms: u32) -> Result<f64> {
        let script = format!(
            "{} --for-ms {ms} --load {load}",
            probe::program()?.display()
        );
        let said = self.neighbour.ask(&script)?;
        let done: Option<Done> = probe::read_lines(&said.join("\n"))?.pop();
        let done =
            done.with_context(|| format!("{script}: {said:?}: {}", self.neighbour.stderr()))?;
        ensure!(done.count > 0, "nothing was done: {done:?}");
        Ok(done.count as f64 / done.ms)
    }
}

/// Measures all loads; returns the figures with the goal of each.
pub(crate) fn measure(options: &Options) -> Result<Vec<(Series, Goal)>> {
    let mut setup = Setup::new()?;
    let mut all = Vec::new();
    for (name, kind, (address, port), unit) in LOADS {
        progress(name);
        let load = format!("{kind}/{address}/{port}");
        let series = compare(&mut setup, Series::new(name, unit), &load, options);
        let series = series.with_context(|| format!("measure {name}"))?;
        let ratio = series.ratio(FENCED, UNFENCED);
        let goal = Goal::at_least(&format!("{name}, to {UNFENCED}"), ratio, SHARE);
        all.push((series, goal));
    }
    Ok(all)
}

/// Fences the guest and lets it go in turns.
fn compare(setup: &mut Setup, mut series: Series, load: &str, options: &Options) -> Result<Series> {
    let ms = options.either(60, 150);
    // Bytes are counted in millions.
    let scale = if series.unit() == "MB/s" { 1000.0 } else { 1.0 };
    for round in 0..options.either(4, 24) {
        let mut samples = [0.0; 2];
        for at in turns(round, 2) {
            let fenced = (at == 1).then(|| Fenced::start(&setup.scene)).transpose()?;
            sleep(PAUSE);
            samples[at] = setup.sample(load, ms)? / scale;
            drop(fenced);
        }
        series.push(UNFENCED, samples[0]);
        series.push(FENCED, samples[1]);
    }
    Ok(series)
}

fn serve(namespace: &Namespace) -> Result<Shell> {
    let mut servers = Shell::start(namespace.command("sh"))?;
    servers.tell(&format!(
        "exec {} --serve sink-tcp/{SINK} source-tcp/{SOURCE}",
        probe::program()?.display()
    ))?;
    let said = servers.next_line()?;
    ensure!(said == "serving", "the server says {said:?}");
    Ok(servers)
}

/// Nobody reads: the kernel drops what does not fit.
fn discard(namespace: &Namespace) -> Result<UdpSocket> {
    let address = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), DISCARD);
    namespace.run(|| UdpSocket::bind(address).context("bind a socket"))
}

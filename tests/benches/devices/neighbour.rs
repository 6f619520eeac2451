//! An unfenced machine in the bridge of a guest: its throughput while the guest is fenced, while rules of a firewall keep it
//! from the host, and while nothing does.

use std::{
    io::ErrorKind,
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    thread::sleep,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use tests::{
    bench::{Options, Series, progress, turns},
    namespace::Namespace,
    probe::{self, Load as Done},
    shell::Shell,
    tap::{
        Header, Kind, Link, Scene, Tap,
        scene::{self, GATEWAY_MAC, GATEWAY_V4, GUEST_MAC, GUEST_V4, SERVER_V4},
        wire,
    },
};

use crate::{
    rival::Rival,
    scene::{DISCARD, Fenced, SINK, SOURCE},
};

/// With what the neighbour's throughput is measured.
const RIVALS: [Rival; 3] = [Rival::Unfenced, Rival::Fence, Rival::Nftables];

/// After the start or the end of a fence: what the supervisor and the kernel still do for it takes a processor, and is not
/// to be in the figures.
const PAUSE: Duration = Duration::from_millis(300);

/// In how many short tries datagrams are sent. The fastest counts.
const TRIES: u32 = 10;

/// How long a datagram of the guest is waited for. It arrives within the call that sends it.
const ARRIVAL: Duration = Duration::from_millis(30);

/// The load of datagrams that are sent one by one.
const DATAGRAMS: &str = "send-udp";

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
        DATAGRAMS,
        (SERVER_V4, DISCARD),
        "1000/s",
    ),
    (
        "a neighbour in the bridge, datagrams to the host",
        DATAGRAMS,
        (GATEWAY_V4, DISCARD),
        "1000/s",
    ),
];

/// A bridge with a guest and a neighbour.
struct Setup {
    /// Makes traffic at the neighbour.
    neighbour: Shell,
    /// While the neighbour is measured, the guest is connected and says nothing.
    guest: Tap,
    _servers: [Shell; 2],
    /// On the host, and on the internet.
    discard: [UdpSocket; 2],
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
            guest: scene.open()?,
            _servers: [serve(&scene.host)?, serve(&scene.internet)?],
            discard: [discard(&scene.host)?, discard(&scene.internet)?],
            scene,
        })
    }

    /// Sets a rival up, and checks that the guest is kept from the host, or not.
    fn with(&self, rival: Rival) -> Result<Option<Fenced>> {
        let fenced = (rival == Rival::Fence).then(|| Fenced::start(&self.scene));
        let fenced = fenced.transpose()?;
        rival.set_up(&self.scene)?;
        let reaches = self.guest_reaches_host()?;
        ensure!(
            reaches == (rival == Rival::Unfenced),
            "{}: a datagram of the guest to the host: {reaches}",
            rival.name()
        );
        Ok(fenced)
    }

    /// Whether a datagram of the guest reaches the host.
    fn guest_reaches_host(&self) -> Result<bool> {
        let [host, _] = &self.discard;
        host.set_read_timeout(Some(ARRIVAL))?;
        let mut bytes = [0; 64];
        let mut next = || match host.recv_from(&mut bytes) {
            Ok((_, from)) => Ok(Some(from.ip())),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        };
        // What the neighbour sent.
        while next()?.is_some() {}
        let packet = wire::udp((GUEST_V4, 4000), (GATEWAY_V4, DISCARD), b"hello");
        let frame = wire::packet(GUEST_MAC, GATEWAY_MAC, &packet);
        self.guest.send_anything(&frame)?;
        Ok(next()? == Some(GUEST_V4))
    }

    /// Carries a load for some milliseconds; its counts a second, in thousands of bytes or datagrams.
    #[expect(
        clippy::cast_precision_loss,
        reason = "nothing counts to 2^53 in a round"
    )]
    fn sample(&mut self, load: &str, ms: u32) -> Result<f64> {
        let probe = probe::program()?;
        let script = format!("{} --for-ms {ms} --load {load}", probe.display());
        let said = self.neighbour.ask(&script)?;
        let done: Option<Done> = probe::read_lines(&said.join("\n"))?.pop();
        let done =
            done.with_context(|| format!("{script}: {said:?}: {}", self.neighbour.stderr()))?;
        ensure!(done.count > 0, "nothing was done: {done:?}");
        Ok(done.count as f64 / done.ms)
    }
}

/// Measures all loads; returns the figures.
pub(crate) fn measure(options: &Options) -> Result<Vec<Series>> {
    let mut setup = Setup::new()?;
    let mut all = Vec::new();
    for (name, kind, (address, port), unit) in LOADS {
        progress(name);
        let load = format!("{kind}/{address}/{port}");
        let series = compare(&mut setup, Series::new(name, unit), &load, options);
        all.push(series.with_context(|| format!("measure {name}"))?);
    }
    Ok(all)
}

/// Sets each rival up and takes it away in turns.
fn compare(setup: &mut Setup, mut series: Series, load: &str, options: &Options) -> Result<Series> {
    let ms = options.either(60, 150);
    // Bytes are counted in millions.
    let scale = if series.unit() == "MB/s" { 1000.0 } else { 1.0 };
    for round in 0..options.either(4, 24) {
        let mut samples = [0.0; RIVALS.len()];
        for at in turns(round, RIVALS.len()) {
            let rival = RIVALS[at];
            let fenced = setup.with(rival)?;
            sleep(PAUSE);
            // What else the machine does makes more difference to a sender of datagrams than what is measured.
            let tries = if load.starts_with(DATAGRAMS) {
                TRIES
            } else {
                1
            };
            for _ in 0..tries {
                let sample = setup.sample(load, ms / tries)? / scale;
                samples[at] = sample.max(samples[at]);
            }
            drop(fenced);
            rival.take_away(&setup.scene)?;
        }
        for (rival, sample) in RIVALS.into_iter().zip(samples) {
            series.push(rival.name(), sample);
        }
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

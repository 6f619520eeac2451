//! A host with a tap device for each rival, the frames of one guest, and a second guest with a network stack.

use std::net::{SocketAddr, UdpSocket};

use anyhow::{Context as _, Result, ensure};
use tests::{
    fence::Fence,
    namespace::Namespace,
    probe::{self, Load as Done},
    shell::Shell,
    tap::{
        Header, Kind, Link, Scene, Tap,
        relay::Relay,
        scene::{self, SERVER_V4, SERVER_V6, TAP, furnish_guest},
    },
};

use crate::rival::Rival;

/// What is sent there is dropped without a word.
pub(crate) const DISCARD: u16 = 7003;
/// What is sent there is read.
pub(crate) const SINK: u16 = 7001;
/// It sends as long as it is read.
pub(crate) const SOURCE: u16 = 7002;

/// The guest's MAC address, as `--mac` takes it.
pub(crate) const MAC: &str = "02:00:00:00:00:10";

/// A host with a rival, and its guest.
pub(crate) struct Setup {
    rival: Rival,
    /// The guest's device, for frames.
    tap: Tap,
    /// Makes traffic in the guest with a network stack.
    guest: Shell,
    fenced: Option<Fenced>,
    _relay: Relay,
    _servers: Shell,
    _discard: [UdpSocket; 2],
    _scene: Scene,
}

/// A fence with the device, and the shell in it, with which it ends.
pub(crate) struct Fenced {
    shell: Shell,
    _fence: Fence,
}

impl Setup {
    pub(crate) fn new(rival: Rival) -> Result<Self> {
        let scene = scene::lay_out(Kind {
            link: Link::Routed,
            header: Header::Virtio,
            filters_bridge: false,
        })?;
        rival.set_up(&scene)?;
        let fenced = match rival {
            Rival::Fence => Some(Fenced::start(&scene)?),
            _ => None,
        };
        let tap = scene.open()?;
        let namespace = Namespace::new()?;
        let relay = Relay::join(tap.try_clone()?, &namespace, Header::Virtio)?;
        furnish_guest(&namespace)?;
        let mut servers = Shell::start(scene.internet.command("sh"))?;
        servers.tell(&format!(
            "exec {} --serve sink-tcp/{SINK} source-tcp/{SOURCE}",
            probe::program()?.display()
        ))?;
        let said = servers.next_line()?;
        ensure!(said == "serving", "the server says {said:?}");
        // Nobody reads: the kernel drops what does not fit.
        let discard = [SERVER_V4, SERVER_V6].map(|address| {
            scene
                .internet
                .run(|| UdpSocket::bind(SocketAddr::new(address, DISCARD)).context("bind a socket"))
        });
        let [v4, v6] = discard;
        Ok(Self {
            rival,
            tap,
            guest: Shell::start(namespace.command("sh"))?,
            fenced,
            _relay: relay,
            _servers: servers,
            _discard: [v4?, v6?],
            _scene: scene,
        })
    }

    pub(crate) fn rival(&self) -> Rival {
        self.rival
    }

    pub(crate) fn tap(&self) -> &Tap {
        &self.tap
    }

    /// The process id of the fence's supervisor.
    pub(crate) fn supervisor(&self) -> Result<u32> {
        let fenced = self.fenced.as_ref().context("there is no fence")?;
        Ok(fenced.shell.started())
    }

    /// Has the guest with a network stack make traffic for some milliseconds.
    pub(crate) fn transfer(&mut self, load: &str, ms: u32) -> Result<Done> {
        let script = format!(
            "{} --for-ms {ms} --load {load}",
            probe::program()?.display()
        );
        let said = self.guest.ask(&script)?;
        let mut loads: Vec<Done> = probe::read_lines(&said.join("\n"))?;
        let done = loads.pop();
        let done = done.with_context(|| format!("{script}: {said:?}: {}", self.guest.stderr()))?;
        ensure!(done.count > 0, "nothing was done: {done:?}");
        Ok(done)
    }
}

impl Fenced {
    pub(crate) fn start(scene: &Scene) -> Result<Self> {
        let fence =
            Fence::new("devices")?.with(&["--device", TAP, "--mac", MAC, "--user", "nobody"]);
        // It answers when the fence is complete.
        let shell = Shell::start(fence.command(&scene.host, "sh"))?;
        Ok(Self {
            shell,
            _fence: fence,
        })
    }
}

//! A host, an internet with echoes, and processes that keep connections to them.

use std::{
    collections::BTreeSet,
    fs,
    io::{self, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    os::fd::AsFd as _,
    path::Path,
    process::Command,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use aya::maps::{MapFd, MapInfo, MapType};
use qfence_common::abi::OWNERS_MAP;
use qfence_user::{
    fence::hierarchy::Hierarchy,
    supervise::established::{self, Connection, Ended},
};
use tests::{
    fence::{Fence, qfence},
    listener::Listener,
    namespace::Namespace,
    probe,
    run::wait_until,
    shell::Shell,
    world::World,
};

/// The echo that keeps a record of how connections end.
pub(crate) const WATCHED: u16 = 7000;
/// The other echoes.
pub(crate) const TCP: u16 = 7001;
pub(crate) const MPTCP: u16 = 7002;
pub(crate) const UDP: u16 = 7003;

/// How soon all has to be over.
pub(crate) const SOON: Duration = Duration::from_secs(1);

/// How connections ended: by an error, or without.
type Endings = Vec<Option<io::ErrorKind>>;

/// A host and an internet with echoes on all of its addresses.
pub(crate) struct Scene {
    pub(crate) world: World,
    endings: Arc<Mutex<Endings>>,
    _echoes: Shell,
    _datagrams: Vec<Listener>,
}

impl Scene {
    pub(crate) fn new() -> Result<Self> {
        let world = World::new()?;
        let echoes = serve(
            world.internet.command("sh"),
            &format!("echo-tcp/{TCP} echo-mptcp/{MPTCP}"),
        )?;
        // A connected socket takes an answer from the address that it has called only.
        let mut datagrams = Vec::new();
        for any in [
            IpAddr::from(Ipv4Addr::UNSPECIFIED),
            Ipv6Addr::UNSPECIFIED.into(),
        ] {
            let address = SocketAddr::new(any, UDP);
            datagrams.push(Listener::udp(&world.internet, address)?);
        }
        let scene = Self {
            endings: Arc::default(),
            _echoes: echoes,
            _datagrams: datagrams,
            world,
        };
        scene.watch(&scene.world.internet)?;
        Ok(scene)
    }

    /// Serves an echo in a namespace that keeps a record of how connections end.
    pub(crate) fn watch(&self, namespace: &Namespace) -> Result<()> {
        let listener =
            namespace.run(|| Ok(TcpListener::bind((Ipv6Addr::UNSPECIFIED, WATCHED))?))?;
        let log = Arc::clone(&self.endings);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let log = Arc::clone(&log);
                thread::spawn(move || watch(stream, &log));
            }
        });
        Ok(())
    }

    /// Waits until the echo has seen as many connections end, by a reset each; by when that is.
    pub(crate) fn await_resets(&self, count: usize) -> Result<()> {
        let endings = || {
            let endings = self.endings.lock();
            endings.unwrap_or_else(PoisonError::into_inner).clone()
        };
        wait_until("the peer has seen the end", || Ok(endings().len() >= count))?;
        let is_reset = |error| error == Some(io::ErrorKind::ConnectionReset);
        ensure!(endings().into_iter().all(is_reset), "{:?}", endings());
        ensure!(endings().len() == count, "{:?}", endings());
        Ok(())
    }

    /// Ends what is denied of a fence, by its supervisor's process id; checks how long that takes.
    pub(crate) fn end(
        &self,
        fence: &Fence,
        supervisor: u32,
        denied: impl Fn(&Connection) -> bool + Send,
    ) -> Result<Ended> {
        let hierarchy = Hierarchy::find(Path::new("/proc/self/mountinfo"))?;
        let cgroup = hierarchy.cgroup(fence.name());
        let (owners, program) = (owners(supervisor)?, qfence()?);
        let start = Instant::now();
        let ended = self
            .world
            .host
            .run(|| established::end(&program, &cgroup, owners.as_fd(), denied))?;
        let took = start.elapsed();
        ensure!(took < SOON, "it took {took:?}");
        Ok(ended)
    }
}

fn watch(stream: TcpStream, log: &Mutex<Endings>) {
    let mut buffer = [0; 64];
    let error = loop {
        match (&stream).read(&mut buffer) {
            Ok(0) => break None,
            Ok(length) => {
                let _ = (&stream).write_all(&buffer[..length]);
            }
            Err(error) => break Some(error.kind()),
        }
    };
    log.lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(error);
}

/// Starts services of the probe.
pub(crate) fn serve(shell: Command, services: &str) -> Result<Shell> {
    let mut shell = Shell::start(shell)?;
    let program = probe::program()?;
    shell.tell(&format!("{} --serve {services}", program.display()))?;
    let line = shell.next_line()?;
    ensure!(line == "serving", "{line}");
    Ok(shell)
}

/// The storage of owners of a fence, as its supervisor holds it.
fn owners(supervisor: u32) -> Result<MapFd> {
    for entry in fs::read_dir(format!("/proc/{supervisor}/fdinfo"))? {
        // One that was closed meanwhile is not it.
        let info = fs::read_to_string(entry?.path()).unwrap_or_default();
        let id = info.lines().find_map(|line| line.strip_prefix("map_id:"));
        let Some(id) = id else { continue };
        let map = MapInfo::from_id(id.trim().parse()?)?;
        // Another one has the queries for names.
        if map.map_type()? == MapType::SkStorage && map.name_as_str() == Some(OWNERS_MAP) {
            return Ok(map.fd()?);
        }
    }
    bail!("the supervisor {supervisor} holds no storage of sockets")
}

/// A shell that runs the probe, which keeps connections.
pub(crate) struct Holder {
    shell: Shell,
    unasked: Vec<String>,
}

impl Holder {
    /// Starts a command that ends in `sh`; `prefix` goes before the probe. Each connection carries
    /// data when this returns.
    pub(crate) fn start(command: Command, prefix: &str, names: &[String]) -> Result<Self> {
        let mut shell = Shell::start(command)?;
        let program = probe::program()?;
        let words = names.join(" ");
        shell.tell(&format!("{prefix} {} --hold {words}", program.display()))?;
        let mut expected: Vec<_> = names
            .iter()
            .filter(|name| !name.starts_with("opening"))
            .map(|name| format!("{name} held"))
            .collect();
        expected.push("holding".to_owned());
        for expected in expected {
            let line = shell.next_line().with_context(|| expected.clone())?;
            ensure!(line == expected, "{line}, and not {expected}");
        }
        let mut holder = Self {
            shell,
            unasked: Vec::new(),
        };
        let lines = holder.ask()?;
        let stands = lines.iter().filter(|line| line.ends_with(" stands"));
        ensure!(stands.count() + 1 >= names.len(), "control: {lines:?}");
        Ok(holder)
    }

    /// The process id of what was started.
    pub(crate) fn started(&self) -> u32 {
        self.shell.started()
    }

    /// Asks of every connection whether it carries data.
    pub(crate) fn ask(&mut self) -> Result<Vec<String>> {
        self.shell.tell("")?;
        let mut lines = Vec::new();
        loop {
            match self.shell.next_line()? {
                line if line == "asked" => return Ok(lines),
                line if line.contains(" ended ") => self.unasked.push(line),
                line => lines.push(line),
            }
        }
    }

    /// Waits until as many connections have ended as are named, each with that error.
    pub(crate) fn await_ended(&mut self, names: &[String], error: &str) -> Result<()> {
        let start = Instant::now();
        while self.unasked.len() < names.len() {
            let line = self.shell.next_line()?;
            self.unasked.push(line);
        }
        let took = start.elapsed();
        ensure!(took < SOON, "it took {took:?}");
        let ended: BTreeSet<_> = self.unasked.iter().cloned().collect();
        let expected = names.iter().map(|name| format!("{name} ended {error}"));
        ensure!(ended == expected.collect(), "{ended:?}");
        Ok(())
    }

    /// Checks that these connections carry data, and that no other does.
    pub(crate) fn ensure_stand(&mut self, names: &[String]) -> Result<()> {
        let lines = self.ask()?;
        let expected: Vec<_> = names.iter().map(|name| format!("{name} stands")).collect();
        ensure!(lines == expected, "{lines:?}, and not {expected:?}");
        Ok(())
    }
}

/// A connection to be held.
pub(crate) fn to(kind: &str, address: impl Into<IpAddr>, port: u16) -> String {
    format!("{kind}/{}/{port}", address.into())
}

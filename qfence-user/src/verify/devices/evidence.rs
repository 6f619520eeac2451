//! What shows that a frame arrived: the kernel's counters behind the last hook of netfilter, and packet sockets for what
//! is not IP.
//!
//! The host receives a frame of the guest within the call that writes it, so the counters are right when it returns.

use std::{
    fmt,
    fs::File,
    io::{Read as _, Seek as _, SeekFrom},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use nix::{errno::Errno, sys::socket::MsgFlags};
use socket2::{Domain, Protocol, Socket, Type};
use std::os::fd::AsRawFd as _;

use crate::verify::netns::Netns;

/// The ethertypes of the frames that are no IP, and for which the host has a packet socket: LLC, and others.
pub const OTHER_KINDS: [u16; 8] = [
    0x0004, 0x0806, 0x8847, 0x8864, 0x888e, 0x88b5, 0x88cc, 0x9000,
];

/// The counters are quiet if they did not change for this time.
const QUIET: Duration = Duration::from_millis(300);

/// What has arrived so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Arrived {
    /// Packets that the host's IP stack handed on to a protocol, after the last hook of netfilter.
    pub delivered: u64,
    /// Frames that are no IP and that a packet socket of the host received.
    pub others: u64,
    /// IP packets that the internet received.
    pub internet: u64,
    /// Frames that the neighbour received.
    pub neighbour: u64,
    /// Frames that the host received from the device, before any program judged them.
    pub sent: u64,
}

impl Arrived {
    /// What has arrived since an earlier time.
    #[must_use]
    pub fn since(self, before: Self) -> Self {
        Self {
            delivered: self.delivered - before.delivered,
            others: self.others - before.others,
            internet: self.internet - before.internet,
            neighbour: self.neighbour - before.neighbour,
            sent: self.sent - before.sent,
        }
    }
}

impl fmt::Display for Arrived {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            out,
            "delivered {}, others {}, internet {}, neighbour {}, sent {}",
            self.delivered, self.others, self.internet, self.neighbour, self.sent
        )
    }
}

/// A reader of the counters.
#[derive(Debug)]
pub struct Evidence {
    host: Stack,
    internet: Stack,
    device: Device,
    neighbour: Option<Device>,
    sockets: Vec<Socket>,
    others: u64,
}

impl Evidence {
    /// Opens the counters of the host, its tap device, the internet, and the neighbour's card.
    ///
    /// # Errors
    /// If the kernel has no packet sockets.
    pub fn new(
        host: &Netns,
        device: &str,
        internet: &Netns,
        neighbour: Option<(&Netns, &str)>,
    ) -> Result<Self> {
        let neighbour = neighbour
            .map(|(namespace, card)| Device::open(namespace, card))
            .transpose()?;
        Ok(Self {
            host: Stack::open(host)?,
            internet: Stack::open(internet)?,
            device: Device::open(host, device)?,
            neighbour,
            sockets: host.run(|| OTHER_KINDS.into_iter().map(listen).collect())?,
            others: 0,
        })
    }

    /// What has arrived so far.
    ///
    /// # Errors
    /// If a counter cannot be read.
    pub fn arrived(&mut self) -> Result<Arrived> {
        let mut byte = [0; 1];
        for socket in &self.sockets {
            loop {
                match nix::sys::socket::recv(socket.as_raw_fd(), &mut byte, MsgFlags::MSG_DONTWAIT)
                {
                    Ok(_) => self.others += 1,
                    Err(Errno::EAGAIN) => break,
                    Err(Errno::ENETDOWN) => {}
                    Err(errno) => bail!("receive a frame: {errno}"),
                }
            }
        }
        Ok(Arrived {
            delivered: self.host.read(&["InDelivers", "InUnknownProtos"])?,
            others: self.others,
            internet: self.internet.read(&["InReceives"])?,
            neighbour: match &mut self.neighbour {
                Some(device) => device.received()?,
                None => 0,
            },
            sent: self.device.received()?,
        })
    }

    /// Waits until nothing arrives any more.
    ///
    /// # Errors
    /// If something arrives for half a minute.
    pub fn settle(&mut self) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(30);
        let mut before = self.arrived()?;
        loop {
            thread::sleep(QUIET);
            let now = self.arrived()?;
            if now == before {
                return Ok(());
            }
            if Instant::now() >= deadline {
                bail!("it does not become quiet: {}", now.since(before));
            }
            before = now;
        }
    }
}

/// A packet socket for an ethertype, on all devices.
fn listen(kind: u16) -> Result<Socket> {
    let protocol = Protocol::from(i32::from(kind.to_be()));
    let kind = Type::RAW.nonblocking();
    Socket::new(Domain::PACKET, kind, Some(protocol)).context("open a packet socket")
}

/// The counters of the IP stack of a namespace.
#[derive(Debug)]
struct Stack {
    v4: File,
    v6: File,
}

impl Stack {
    fn open(namespace: &Netns) -> Result<Self> {
        let open = |name| {
            let path = format!("/proc/thread-self/net/{name}");
            File::open(&path).with_context(|| format!("open {path}"))
        };
        namespace.run(|| {
            Ok(Self {
                v4: open("snmp")?,
                v6: open("snmp6")?,
            })
        })
    }

    /// The sum of counters of both families.
    fn read(&mut self, names: &[&str]) -> Result<u64> {
        let (v4, v6) = (again(&mut self.v4)?, again(&mut self.v6)?);
        // A table: a line of names, then one of values.
        let mut rows = v4.lines().filter_map(|line| line.strip_prefix("Ip: "));
        let (titles, values) = (rows.next().unwrap_or(""), rows.next().unwrap_or(""));
        let mut sum = 0;
        for name in names {
            let mut columns = titles.split(' ').zip(values.split(' '));
            let value = columns.find_map(|(title, value)| (title == *name).then_some(value));
            sum += value.context("a counter of IPv4")?.parse::<u64>()?;
            let wanted = format!("Ip6{name}");
            let value = v6.lines().find_map(|line| {
                let mut words = line.split_whitespace();
                (words.next() == Some(&wanted)).then(|| words.next())?
            });
            sum += value.context("a counter of IPv6")?.parse::<u64>()?;
        }
        Ok(sum)
    }
}

/// The counters of a device.
#[derive(Debug)]
struct Device {
    file: File,
    line: String,
}

impl Device {
    fn open(namespace: &Netns, name: &str) -> Result<Self> {
        let file = namespace.run(|| Ok(File::open("/proc/thread-self/net/dev")?))?;
        Ok(Self {
            file,
            line: format!("{name}:"),
        })
    }

    /// The number of frames that it received.
    fn received(&mut self) -> Result<u64> {
        let text = again(&mut self.file)?;
        let found = text.lines().find_map(|line| {
            let rest = line.trim_start().strip_prefix(&self.line)?;
            rest.split_whitespace().nth(1)
        });
        // A device that was deleted has received nothing.
        found.map_or(Ok(0), |count| Ok(count.parse()?))
    }
}

fn again(file: &mut File) -> Result<String> {
    let mut text = String::new();
    file.seek(SeekFrom::Start(0))?;
    file.read_to_string(&mut text)?;
    Ok(text)
}

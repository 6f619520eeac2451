//! What shows that a frame arrived: at the host the kernel's counters behind the last hook of netfilter, and packet sockets
//! for what is not IP; elsewhere packet sockets.
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
use nix::{errno::Errno, libc, sys::socket::LinkAddr};
use socket2::{Domain, Protocol, Socket, Type};
use std::os::fd::AsRawFd as _;

use super::scene::GUEST_MAC;
use crate::verify::netns::Netns;

/// The ethertypes of the frames that are no IP, and for which the host has a packet socket: LLC, and others.
pub const OTHER_KINDS: [u16; 8] = [
    0x0004, 0x0806, 0x8847, 0x8864, 0x888e, 0x88b5, 0x88cc, 0x9000,
];

/// Every ethertype: `ETH_P_ALL` of linux/if_ether.h.
const EVERYTHING: u16 = 3;

/// The counters are quiet if they did not change for this time.
const QUIET: Duration = Duration::from_millis(300);

/// What has arrived so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Arrived {
    /// Packets that the host's IP stack handed on to a protocol, after the last hook of netfilter.
    pub delivered: u64,
    /// Frames that are no IP and that a packet socket of the host received.
    pub others: u64,
    /// Frames that the internet received. What its neighbours ask each other does not count.
    pub internet: u64,
    /// Frames that the neighbour received. What the host and the neighbour ask each other does not count.
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
    internet: Taken,
    device: Device,
    neighbour: Option<Taken>,
    sockets: Vec<Socket>,
    others: u64,
}

impl Evidence {
    /// Opens the counters of the host, its tap device, the internet, and the neighbour.
    ///
    /// # Errors
    /// If the kernel has no packet sockets.
    pub fn new(
        host: &Netns,
        device: &str,
        internet: &Netns,
        neighbour: Option<&Netns>,
    ) -> Result<Self> {
        Ok(Self {
            host: Stack::open(host)?,
            internet: Taken::open(internet)?,
            device: Device::open(host, device)?,
            neighbour: neighbour.map(Taken::open).transpose()?,
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
            while receive(socket, &mut byte)?.is_some() {
                self.others += 1;
            }
        }
        Ok(Arrived {
            delivered: self.host.read(&["InDelivers", "InUnknownProtos"])?,
            others: self.others,
            internet: self.internet.count()?,
            neighbour: match &mut self.neighbour {
                Some(taken) => taken.count()?,
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

/// Receives the beginning of a frame if there is one, and returns its length, and whether this namespace sent it.
fn receive(socket: &Socket, beginning: &mut [u8]) -> Result<Option<(usize, bool)>> {
    loop {
        let received = nix::sys::socket::recvfrom::<LinkAddr>(socket.as_raw_fd(), beginning);
        match received {
            Ok((length, from)) => {
                let is_sent = from.is_some_and(|from| from.pkttype() == libc::PACKET_OUTGOING);
                return Ok(Some((length, is_sent)));
            }
            Err(Errno::EAGAIN) => return Ok(None),
            Err(Errno::ENETDOWN) => {}
            Err(errno) => bail!("receive a frame: {errno}"),
        }
    }
}

/// A packet socket for an ethertype, on all devices.
fn listen(kind: u16) -> Result<Socket> {
    let protocol = Protocol::from(i32::from(kind.to_be()));
    let kind = Type::RAW.nonblocking();
    Socket::new(Domain::PACKET, kind, Some(protocol)).context("open a packet socket")
}

/// The frames that the devices of a namespace received.
#[derive(Debug)]
struct Taken {
    socket: Socket,
    count: u64,
}

impl Taken {
    fn open(namespace: &Netns) -> Result<Self> {
        Ok(Self {
            socket: namespace.run(|| listen(EVERYTHING))?,
            count: 0,
        })
    }

    /// The number of frames so far, without the background.
    fn count(&mut self) -> Result<u64> {
        let mut beginning = [0; 64];
        while let Some((length, is_sent)) = receive(&self.socket, &mut beginning)? {
            let frame = &beginning[..length.min(beginning.len())];
            // What leaves a namespace by its loopback device comes back there.
            if !is_sent && !is_loopback(frame) && !is_background(frame) {
                self.count += 1;
            }
        }
        Ok(self.count)
    }
}

/// Whether a frame has no MAC addresses, as those of the loopback device.
fn is_loopback(frame: &[u8]) -> bool {
    frame.iter().take(12).all(|byte| *byte == 0)
}

/// Whether a frame is one by which machines other than the guest look for each other at times of their own: ARP, neighbour
/// discovery, and reports of groups.
fn is_background(frame: &[u8]) -> bool {
    let at = |place: usize| frame.get(place).copied().unwrap_or(0);
    if frame.get(6..12) == Some(&GUEST_MAC) {
        return false;
    }
    match u16::from_be_bytes([at(12), at(13)]) {
        0x0806 => true,
        // IGMP.
        0x0800 => at(23) == 2,
        0x86dd => {
            // The reports have a header of options before them.
            let icmp = match at(20) {
                58 => 54,
                0 if at(54) == 58 => 62,
                _ => return false,
            };
            matches!(at(icmp), 130..=137 | 143)
        }
        _ => false,
    }
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

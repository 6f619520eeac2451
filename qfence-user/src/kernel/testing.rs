//! Scenes for tests: network and mount namespaces of their own, with a bpffs and devices in them.

use std::{
    fs::File,
    io::Write as _,
    net::{IpAddr, UdpSocket},
    os::fd::{AsFd, AsRawFd as _, OwnedFd},
    path::PathBuf,
    process::Command,
    thread,
    time::Duration,
};

use etherparse::PacketBuilder;
use nix::{
    libc,
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
};

use super::{
    bpffs::mount_bpffs,
    program_load::Load,
    syscall::{bpf_fd, number},
};

/// The MAC address of the guest.
pub(super) const GUEST: [u8; 6] = [0x52, 0x54, 0, 0, 0, 1];

/// The port of the host's service.
pub(super) const PORT: u16 = 7777;

/// How long a datagram may take.
const PATIENCE: Duration = Duration::from_millis(300);

/// The directories of a test.
pub(crate) struct Scene {
    pub(super) bpffs: PathBuf,
    pub(crate) run: PathBuf,
    _directory: tempfile::TempDir,
}

/// Runs a test in fresh network and mount namespaces, on a thread of its own. They end with it.
pub(crate) fn apart<T: Send>(test: impl FnOnce(&Scene) -> T + Send) -> T {
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).unwrap();
            let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
            mount(None::<&str>, "/", None::<&str>, private, None::<&str>).unwrap();
            run("ip link set lo up");
            test(&Scene::new())
        });
        thread.join().unwrap()
    })
}

impl Scene {
    pub(super) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let bpffs = directory.path().join("bpf");
        let run = directory.path().join("run");
        for path in [&bpffs, &run] {
            std::fs::create_dir(path).unwrap();
        }
        mount_bpffs(&bpffs).unwrap();
        Self {
            bpffs,
            run,
            _directory: directory,
        }
    }
}

/// A directory on which something is mounted cannot be removed.
impl Drop for Scene {
    fn drop(&mut self) {
        umount2(&self.bpffs, MntFlags::MNT_DETACH).unwrap();
    }
}

/// Runs a command; its words have no spaces.
pub(super) fn run(command: &str) {
    let mut words = command.split(' ');
    let status = Command::new(words.next().unwrap()).args(words).status();
    assert!(status.unwrap().success(), "{command}");
}

/// The network namespace of the calling thread.
pub(super) fn netns() -> File {
    File::open("/proc/thread-self/ns/net").unwrap()
}

/// A new network namespace.
pub(super) fn fresh_netns() -> File {
    let thread = thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        netns()
    });
    thread.join().unwrap()
}

/// The path of an open namespace, for commands.
pub(super) fn path_of(netns: &File) -> String {
    format!("/proc/{}/fd/{}", std::process::id(), netns.as_raw_fd())
}

/// The index of a device.
pub(super) fn index_of(device: &str) -> u32 {
    nix::net::if_::if_nametoindex(device).unwrap()
}

/// Whether there is a device of this name.
pub(super) fn exists(device: &str) -> bool {
    nix::net::if_::if_nametoindex(device).is_ok()
}

/// A tap device `t0` of the host, and the guest behind it. The host has 192.0.2.1 and 2001:db8::1, the guest 192.0.2.2 and
/// 2001:db8::2.
pub(super) struct Tap {
    guest: File,
    mac: [u8; 6],
}

impl Tap {
    pub(super) fn new() -> Self {
        Self::with(0)
    }

    /// As above. Before each frame is a header of virtio, which names a checksum that is left to the host.
    pub(super) fn with_virtio() -> Self {
        Self::with(libc::IFF_VNET_HDR)
    }

    fn with(flags: libc::c_int) -> Self {
        const TUNSETIFF: libc::c_ulong = 0x4004_54ca;
        let guest = File::options()
            .read(true)
            .write(true)
            .open("/dev/net/tun")
            .unwrap();
        // SAFETY: an `ifreq` of zeros is valid.
        let mut wanted: libc::ifreq = unsafe { std::mem::zeroed() };
        for (place, byte) in wanted.ifr_name.iter_mut().zip(b"t0") {
            *place = libc::c_char::try_from(*byte).unwrap();
        }
        wanted.ifr_ifru.ifru_flags =
            libc::c_short::try_from(libc::IFF_TAP | libc::IFF_NO_PI | flags).unwrap();
        // SAFETY: the kernel reads and writes an `ifreq`.
        let result = unsafe { libc::ioctl(guest.as_raw_fd(), TUNSETIFF, &raw mut wanted) };
        assert_eq!(result, 0);
        run("ip address add 192.0.2.1/24 dev t0");
        run("ip -6 address add 2001:db8::1/64 dev t0 nodad");
        run("ip link set t0 up");
        Self {
            guest,
            mac: mac_of("t0"),
        }
    }

    /// Sends a frame.
    pub(super) fn write(&mut self, frame: &[u8]) {
        self.guest.write_all(frame).unwrap();
    }

    /// Sends a datagram to the host's address, as the guest with this MAC address.
    pub(super) fn send(&mut self, source: [u8; 6], host: IpAddr, port: u16) {
        let frame = PacketBuilder::ethernet2(source, self.mac);
        let frame = match host {
            IpAddr::V4(host) => frame.ipv4([192, 0, 2, 2], host.octets(), 64),
            IpAddr::V6(host) => {
                let guest: std::net::Ipv6Addr = "2001:db8::2".parse().unwrap();
                frame.ipv6(guest.octets(), host.octets(), 64)
            }
        };
        let frame = frame.udp(9, port);
        let mut bytes = Vec::new();
        frame.write(&mut bytes, b"hello").unwrap();
        self.guest.write_all(&bytes).unwrap();
    }
}

/// The MAC address of a device, from `ip`.
fn mac_of(device: &str) -> [u8; 6] {
    let shown = Command::new("ip")
        .args(["-o", "link", "show", device])
        .output()
        .unwrap();
    let shown = String::from_utf8(shown.stdout).unwrap();
    let mac = shown
        .split("link/ether ")
        .nth(1)
        .unwrap()
        .split(' ')
        .next()
        .unwrap();
    let bytes: Vec<u8> = mac
        .split(':')
        .map(|byte| u8::from_str_radix(byte, 16).unwrap())
        .collect();
    bytes.try_into().unwrap()
}

/// A service of the host, on all addresses.
pub(super) struct Service(UdpSocket);

impl Service {
    pub(super) fn new(port: u16) -> Self {
        let socket = UdpSocket::bind(("::", port)).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(socket)
    }

    /// Whether a datagram arrives.
    pub(super) fn hears(&self) -> bool {
        let mut buffer = [0; 16];
        self.0.recv(&mut buffer).is_ok()
    }
}

/// A program for network devices, of these instructions.
pub(super) fn classifier(instructions: &[u64]) -> OwnedFd {
    /// `BPF_PROG_TYPE_SCHED_CLS`.
    const KIND: u32 = 3;
    bpf_fd(&mut Load {
        kind: KIND,
        count: u32::try_from(instructions.len()).unwrap(),
        instructions: instructions.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
        ..Load::default()
    })
    .unwrap()
}

/// A program that lets everything through, and what comes after it not run (`TCX_PASS`).
pub(super) fn passes() -> OwnedFd {
    classifier(&[set(0, 0), EXIT])
}

/// A program that gives each frame a mark and a `tc_index`, and lets it go on.
pub(super) fn tags(mark: u32, tc_index: u16) -> OwnedFd {
    /// The offsets in `struct __sk_buff`.
    const MARK: u64 = 8;
    const TC_INDEX: u64 = 44;
    classifier(&[
        set(2, mark),
        store(1, 2, MARK),
        set(2, tc_index.into()),
        store(1, 2, TC_INDEX),
        set(0, u32::MAX),
        EXIT,
    ])
}

/// A program that writes the `tc_index` of each frame to the first element of an array of words, and lets the frame go
/// on.
pub(super) fn tells_tag(array: &impl AsFd) -> OwnedFd {
    /// The offset in `struct __sk_buff`.
    const TC_INDEX: u64 = 44;
    /// `BPF_PSEUDO_MAP_FD`, and `bpf_map_lookup_elem`.
    const MAP: u64 = 1;
    const LOOKUP: u64 = 1;
    let array = u64::from(number(array).unwrap());
    classifier(&[
        // r6 = the word of the context.
        0x61 | 6 << 8 | 1 << 12 | TC_INDEX << 16,
        // The word below r10 = 0; r2 = its address.
        0x62 | 10 << 8 | 0xfffc << 16,
        0xbf | 2 << 8 | 10 << 12,
        0x07 | 2 << 8 | 0xffff_fffc << 32,
        // r1 = the array, in two instructions.
        0x18 | 1 << 8 | MAP << 12 | array << 32,
        0,
        0x85 | LOOKUP << 32,
        // If there is an element, it gets the word.
        0x15 | 1 << 16,
        store(0, 6, 0),
        set(0, u32::MAX),
        EXIT,
    ])
}

const EXIT: u64 = 0x95;

/// Sets a register to a number of 32 bits.
fn set(register: u64, number: u32) -> u64 {
    0xb4 | register << 8 | u64::from(number) << 32
}

/// Writes 32 bits of the register `from` at an offset of the address in the register `to`.
fn store(to: u64, from: u64, offset: u64) -> u64 {
    0x63 | to << 8 | from << 12 | offset << 16
}

/// Waits until a device is gone.
pub(super) fn wait_until_gone(device: &str, patience: Duration) -> bool {
    let deadline = std::time::Instant::now() + patience;
    while exists(device) {
        if std::time::Instant::now() > deadline {
            return false;
        }
        thread::sleep(Duration::from_millis(20));
    }
    true
}

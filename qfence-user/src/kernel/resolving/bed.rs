//! A fence with a resolver, and processes in it.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{Read as _, Write as _},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread::{self, JoinHandle},
};

use qfence_common::{Protocol, Pulse, resolved::Resolver, verdict::MAX_RULES};

use super::super::{
    Askers, Attempts, DenyWith, Kernel, LogAllowed, NetworkDevices, Settings,
    pins::Pins,
    query::Beside,
    resolved::Addresses,
    testing::{Scene, run},
    within::cookie_of,
};
use crate::{
    base::clock::since_boot,
    compile::{compile, named::Lookups},
    confinement::Enforced,
    policy::{
        Policy, Sets,
        hostset::{host_set, single},
    },
};

/// The address of the resolver.
pub(super) const RESOLVER: Ipv4Addr = Ipv4Addr::new(127, 83, 7, 9);

/// An address behind the device `d0`, and another one.
pub(super) const FAR: &str = "203.0.113.80";
pub(super) const OTHER: &str = "203.0.113.81";

const HOUR_NS: u64 = 3_600_000_000_000;

/// Functions for the scripts that run in the fence. Each returns a word: the address that is seen, or the name of an error.
const FUNCTIONS: &str = r#"
import errno, socket, sys
V4, V6, TCP, UDP = socket.AF_INET, socket.AF_INET6, socket.SOCK_STREAM, socket.SOCK_DGRAM
def made(family, kind, protocol=0):
    s = socket.socket(family, kind, protocol)
    s.settimeout(20)
    return s
def said(do):
    try:
        return do()
    except socket.timeout:
        return 'timeout'
    except OSError as error:
        return errno.errorcode[error.errno]
def connects(s, *to):
    return said(lambda: s.connect(to) or 'ok')
def sends(s, *to):
    return said(lambda: s.sendto(b'q', to) and 'ok')
def begins(s, *to):
    s.setblocking(False)
    word = connects(s, *to)
    return 'ok' if word == 'EINPROGRESS' else word
def show(address):
    return f'{address[0]} {address[1]}'
def asked(s, *to):
    def do():
        s.connect(to)
        s.send(b'q')
        return s.recv(16).decode() + ' ' + show(s.getpeername())
    return said(do)
def answered(s, *to):
    def do():
        s.sendto(b'q', to)
        answer, source = s.recvfrom(16)
        return answer.decode() + ' ' + show(source)
    return said(do)
"#;

/// A cgroup, which is removed with this.
struct Cgroup(PathBuf);

impl Cgroup {
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        let mut mounts = mounts.lines().map(|line| line.split(' '));
        let mount = mounts.find_map(|mut words| {
            let at = words.nth(1)?;
            (words.next() == Some("cgroup2")).then_some(at)
        });
        let name = format!("qfence-resolving-{}-{number}", std::process::id());
        let path = PathBuf::from(mount.unwrap()).join(name);
        fs::create_dir(&path).unwrap();
        Self(path)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // A process that was ended is in it until it was waited for.
        let _ = fs::remove_dir(&self.0);
    }
}

/// A fence at a cgroup, in a network namespace with the device `d0`.
pub(crate) struct Bed {
    kernel: Kernel,
    pins: PathBuf,
    cgroup: Cgroup,
    policy: Policy,
    pub(super) addresses: Addresses,
    askers: Option<Askers>,
    attempts: Attempts,
}

impl Bed {
    pub(crate) fn new(scene: &Scene, policy: Policy, resolver: Resolver) -> Self {
        run("ip link add d0 type veth peer name d1");
        run("ip link set d1 up");
        run("ip address add 10.77.0.1/24 dev d0");
        run("ip -6 address add 2001:db8:77::1/64 dev d0 nodad");
        run("ip link set d0 up");
        run("ip route add default dev d0");
        run("ip -6 route add default dev d0");
        let cgroup = Cgroup::new();
        let pins = Pins::new(&scene.bpffs);
        pins.prepare().unwrap();
        let pins = pins.create("names").unwrap();
        let settings = Settings {
            deny: DenyWith::Refused,
            allow_raw: false,
            allow_devices: NetworkDevices::None,
            allow_netns: false,
            node_netns: 0,
            log_allowed: LogAllowed::No,
            cgroup: fs::metadata(&cgroup.0).unwrap().ino(),
            trace: false,
            rules: MAX_RULES,
            devices: false,
            lists: false,
        };
        let enforced = Enforced {
            resolver: Some(resolver),
            ..Enforced::default()
        };
        let compiled = compile(&policy.rules(), &sets(), policy.monitor).unwrap();
        let loaded = Kernel::load(settings, &scene.run, &pins, &compiled, &enforced, None);
        let mut kernel = loaded.unwrap().0;
        kernel.finish_loading().unwrap();
        let file = File::open(&cgroup.0).unwrap();
        let attached = kernel.attach((&cgroup.0, &file), &pins, &[]);
        assert_eq!(attached.unwrap(), Beside::default());
        let addresses = Addresses::open(&pins).unwrap();
        let askers = kernel.take_askers().unwrap();
        let attempts = Attempts::open(&pins).unwrap().unwrap();
        let mut bed = Self {
            kernel,
            pins,
            cgroup,
            policy,
            addresses,
            askers: Some(askers),
            attempts,
        };
        bed.follow();
        bed
    }

    /// The directory of its links.
    pub(crate) fn pins(&self) -> &Path {
        &self.pins
    }

    /// Its sources of queries, for a resolver.
    pub(crate) fn take_askers(&mut self) -> Askers {
        self.askers.take().unwrap()
    }

    /// Whether a query is the fence's.
    pub(super) fn is_of_fence(&self, source: SocketAddr, protocol: Protocol) -> bool {
        let askers = self.askers.as_ref().unwrap();
        askers.is_of_fence(source, protocol).unwrap()
    }

    /// Marks the policy as followed, for as long as a test takes.
    pub(super) fn follow(&mut self) {
        self.set_pulse(now() + HOUR_NS);
    }

    /// Marks the policy as no longer followed.
    pub(super) fn stop_following(&mut self) {
        self.set_pulse(0);
    }

    fn set_pulse(&mut self, followed_ns: u64) {
        let pulse = Pulse { followed_ns };
        self.kernel.as_mut().pulse.set(0, pulse, 0).unwrap();
    }

    /// Judges every segment of standing connections, as after `set`.
    pub(super) fn judge_standing(&mut self) {
        self.kernel.as_mut().judge_standing(true).unwrap();
    }

    /// The grants of a name.
    pub(super) fn grants(&self, name: &str) -> Vec<qfence_common::resolved::Grant> {
        let lookups = Lookups::new(&self.policy.rules());
        lookups.permission(&name.parse().unwrap()).grants
    }

    /// The text of a rule, by the number of calls or packets that it decided.
    pub(super) fn hits(&self, rule: &str) -> u64 {
        let rules = self.policy.rules();
        let found = rules.iter().find(|found| found.rule.to_string() == rule);
        let hits = self.kernel.maps().hits(found.unwrap().number);
        hits.unwrap().calls
    }

    /// The numbers of the rules of the attempts since the last call.
    pub(super) fn refused(&mut self) -> BTreeSet<u32> {
        let mut rules = BTreeSet::new();
        while let Some((event, _)) = self.attempts.event().unwrap() {
            rules.insert(event.key.rule);
        }
        let repeats = self.attempts.take(&[]).unwrap();
        rules.extend(repeats.iter().map(|(key, _)| key.rule));
        rules
    }

    /// Runs a script in the fence. Returns what it prints.
    pub(super) fn run(&self, script: &str) -> Vec<String> {
        self.run_by("exec", script)
    }

    /// The same, by a command that executes python.
    pub(super) fn run_by(&self, by: &str, script: &str) -> Vec<String> {
        let enter = format!(r#"echo $$ > "$0/cgroup.procs" && {by} python3 -c "$1""#);
        let output = Command::new("sh")
            .args(["-c", &enter])
            .arg(&self.cgroup.0)
            .arg(format!("{FUNCTIONS}\n{script}"))
            .output()
            .unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{errors}");
        let shown = String::from_utf8(output.stdout).unwrap();
        shown.lines().map(Into::into).collect()
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        // The bpffs of the test ends with it, and the pins with that.
        let _ = fs::remove_dir_all(&self.pins);
    }
}

/// The host has the addresses of its loopback and of `d0`.
fn sets() -> Sets {
    let own = ["10.77.0.1", "2001:db8:77::1"];
    Sets {
        host: host_set(own.map(|address| single(address.parse().unwrap()))),
        ..Sets::default()
    }
}

/// A resolver that answers each query with `a`, and notes the sources.
pub(crate) struct Answering {
    pub(crate) resolver: Resolver,
    asked: Arc<Mutex<Vec<(SocketAddr, Protocol)>>>,
    ends: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Answering {
    /// Listens on one port, on both addresses, by both protocols.
    pub(crate) fn new() -> Self {
        let v4 = UdpSocket::bind((RESOLVER, 0)).unwrap();
        let port = v4.local_addr().unwrap().port();
        let v6 = UdpSocket::bind((Ipv6Addr::LOCALHOST, port)).unwrap();
        let tcp4 = TcpListener::bind((RESOLVER, port)).unwrap();
        let tcp6 = TcpListener::bind((Ipv6Addr::LOCALHOST, port)).unwrap();
        let asked = Arc::default();
        let ends = Arc::default();
        let mut threads = Vec::new();
        for socket in [v4, v6] {
            let (asked, ends) = (Arc::clone(&asked), Arc::clone(&ends));
            threads.push(thread::spawn(move || answer_udp(&socket, &asked, &ends)));
        }
        for listener in [tcp4, tcp6] {
            let (asked, ends) = (Arc::clone(&asked), Arc::clone(&ends));
            threads.push(thread::spawn(move || answer_tcp(&listener, &asked, &ends)));
        }
        let resolver = Resolver {
            netns: cookie_of(None).unwrap(),
            v4: RESOLVER.into(),
            port,
            has_v6: 1,
        };
        Self {
            resolver,
            asked,
            ends,
            threads,
        }
    }

    /// The sources of the queries since the last call.
    pub(super) fn asked(&self) -> Vec<(SocketAddr, Protocol)> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::SeqCst);
        let port = self.resolver.port;
        for address in [
            SocketAddr::from((RESOLVER, port)),
            (Ipv6Addr::LOCALHOST, port).into(),
        ] {
            let socket = match address {
                SocketAddr::V4(_) => UdpSocket::bind("127.0.0.1:0"),
                SocketAddr::V6(_) => UdpSocket::bind("[::1]:0"),
            };
            let _ = socket.and_then(|socket| socket.send_to(b"end", address));
            let _ = std::net::TcpStream::connect(address);
        }
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

type Asked = Mutex<Vec<(SocketAddr, Protocol)>>;

fn answer_udp(socket: &UdpSocket, asked: &Asked, ends: &AtomicBool) {
    let mut buffer = [0; 16];
    while let Ok((_, source)) = socket.recv_from(&mut buffer) {
        if ends.load(Ordering::SeqCst) {
            return;
        }
        asked.lock().unwrap().push((source, Protocol::UDP));
        socket.send_to(b"a", source).unwrap();
    }
}

fn answer_tcp(listener: &TcpListener, asked: &Asked, ends: &AtomicBool) {
    while let Ok((mut stream, source)) = listener.accept() {
        if ends.load(Ordering::SeqCst) {
            return;
        }
        asked.lock().unwrap().push((source, Protocol::TCP));
        thread::spawn(move || {
            let mut buffer = [0; 16];
            while stream.read(&mut buffer).is_ok_and(|length| length > 0) {
                if stream.write_all(b"a").is_err() {
                    return;
                }
            }
        });
    }
}

/// The time since boot.
pub(super) fn now() -> u64 {
    since_boot().unwrap()
}

//! A line of the record: what was tried, or how much there is no line of its own for.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use nix::time::{ClockId, clock_gettime};
use qfence_common::{AttemptKey, Hook, NO_UID, Origin};
use serde::{Deserialize, Serialize};

use super::process::Process;
use crate::{
    base::printable::{in_parentheses, printable},
    policy::names::RuleName,
    record::operation::Operation,
};

/// The version of what lines look like: another one if a field goes or changes its meaning.
pub const VERSION: u32 = 1;

/// One line. Serialized, its fields are those of the JSON log, one object a line; `docs/record.schema.json`
/// describes them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// [`VERSION`].
    pub v: u32,
    /// When, wall clock, RFC 3339 in UTC: of an attempt when it was made, of several when the last one was.
    pub time: Timestamp,
    /// The name of the fence.
    pub fence: Arc<str>,
    /// The line's number in the fence's record, from 1 on.
    pub seq: u64,
    /// What it tells of.
    #[serde(flatten)]
    pub body: Body,
    /// How many attempts it tells of.
    pub count: u64,
    /// How many attempts this line and all before it tell of.
    pub total: u64,
}

/// What a line tells of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Body {
    /// The first attempt of its key.
    Attempt(Box<Attempt>),
    /// More of a key, since the last line about it.
    Repeats(Box<Attempt>),
    /// What would have been more lines than are written in a second.
    Folded {
        /// How many they would have been.
        lines: u64,
    },
    /// Attempts that the kernel had no room to put on record, or that nobody read in time.
    Lost,
    /// Attempts whose lines are not here: this log was too slow for them, or could not be written. If it is not the fence's
    /// own record, they are in that.
    Dropped,
}

/// An attempt, or more of its key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// `denied`, or `would-deny` where the policy is only monitored.
    pub verdict: String,
    /// The layer of the fence: `call`, `packet`, `socket` or `device`.
    pub layer: String,
    /// The hook in the kernel, by [`Hook::name`].
    pub hook: String,
    /// What was tried.
    #[serde(flatten)]
    pub operation: Operation,
    /// The address it came from, if the socket had one; of several attempts, the first of its key.
    pub source: Option<IpAddr>,
    /// The port it came from, if the socket had one; of several attempts, the first of its key.
    pub source_port: Option<u32>,
    /// The address that a guest dialled, where the QEMU that qfence started makes another one of it.
    pub dialled: Option<IpAddr>,
    /// The rule that decided.
    pub rule: Arc<str>,
    /// What its profile says of it.
    pub comment: Option<Arc<str>>,
    /// The process id, in the initial pid namespace.
    pub pid: Option<u32>,
    /// The thread's id, likewise; of several attempts, the first of its key, and none once the process is another or
    /// executes another program.
    pub tid: Option<u32>,
    /// The user, in the initial user namespace; of several attempts as for `tid`.
    pub uid: Option<u32>,
    /// The name of the thread (`comm`), made safe to print; empty if it is not known. The process's own word;
    /// of several attempts as for `tid`.
    pub command: String,
    /// The path of the process's executable, shortened; the process's own word where it may have a user namespace.
    pub executable: Option<Arc<str>>,
    /// The id of a cgroup, the inode of its directory: that of the process, or of the socket where that was not made
    /// by the process that is named.
    pub cgroup: u64,
    /// The path of the process's cgroup.
    pub cgroup_path: Option<Arc<str>>,
    /// The inode of the process's network namespace.
    pub netns: Option<u64>,
    /// The cookie of the socket's network namespace, which the kernel never gives to another one.
    pub netns_cookie: Option<u64>,
}

/// What came out of the kernel is nothing that the programs of this version record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an attempt on record is none of this version's programs': {0:?}")]
pub struct NotUnderstood(AttemptKey);

impl Attempt {
    /// An attempt of a key, by a rule of that name.
    ///
    /// # Errors
    /// If there is no such hook, or a port is none.
    pub fn new(
        key: &AttemptKey,
        origin: &Origin,
        rule: RuleName,
        process: &Process,
    ) -> Result<Self, NotUnderstood> {
        let operation = Operation::of(key);
        let ports = match operation {
            Operation::Destination { port, .. } => [port, origin.source_port],
            _ => [0, origin.source_port],
        };
        let is_port = |port: &u32| *port <= u32::from(u16::MAX);
        let hook = Hook::from_number(key.hook)
            .filter(|_| ports.iter().all(is_port))
            .ok_or(NotUnderstood(*key))?;
        let known = |number: u32| (number != 0).then_some(number);
        let source = Ipv6Addr::from(origin.source.address()).to_canonical();
        let comm = origin
            .comm
            .0
            .split(|byte| *byte == 0)
            .next()
            .unwrap_or_default();
        // What the programs saw of who tried first is not true of another.
        let is_same = !process.has_changed;
        Ok(Self {
            verdict: if key.monitored == 0 {
                "denied"
            } else {
                "would-deny"
            }
            .to_owned(),
            layer: hook.layer().to_owned(),
            hook: hook.name().to_owned(),
            source: (!source.is_unspecified()).then_some(source),
            source_port: known(origin.source_port),
            dialled: operation
                .address()
                .and_then(|address| process.dialled(key, origin, address)),
            operation,
            rule: rule.rule,
            comment: rule.comment,
            pid: known(key.pid),
            tid: known(origin.tid).filter(|_| is_same),
            uid: (origin.uid != NO_UID && is_same).then_some(origin.uid),
            command: if is_same {
                printable(comm)
            } else {
                String::new()
            },
            executable: process.executable.clone(),
            cgroup: origin.cgroup,
            cgroup_path: process.cgroup_path.clone(),
            netns: process.netns,
            netns_cookie: (origin.netns != 0).then_some(origin.netns),
        })
    }
}

impl Line {
    /// As text, for where the fence is known: the time of day, and what it tells of.
    #[must_use]
    pub fn brief(&self) -> String {
        let text = self.to_string();
        let rest = text.splitn(3, ' ').nth(2).unwrap_or_default();
        format!("{} {rest}", self.time.strftime("%H:%M:%S"))
    }

    /// That the lines before this one, which tell of so many attempts, are missing.
    #[must_use]
    pub(super) fn dropped_before(&self, attempts: u64) -> Self {
        self.dropped(
            self.seq.saturating_sub(1),
            self.total - self.count,
            attempts,
        )
    }

    /// That the lines up to this one, which tell of so many attempts, are missing.
    #[must_use]
    pub(super) fn dropped_after(&self, attempts: u64) -> Self {
        self.dropped(self.seq, self.total, attempts)
    }

    fn dropped(&self, seq: u64, total: u64, count: u64) -> Self {
        Self {
            v: self.v,
            time: Timestamp::now(),
            fence: Arc::clone(&self.fence),
            seq,
            body: Body::Dropped,
            count,
            total,
        }
    }

    /// As JSON, without a line's end.
    ///
    /// # Errors
    /// None that a line of this program's can have.
    pub fn to_json(&self) -> serde_json::Result<String> {
        serde_json::to_string(self)
    }
}

/// `TIME FENCE denied tcp 127.0.0.1:22 connect4 pid 4242 (qemu-system-x86) cgroup 77 rule NAME`, of a process that is not
/// known `pid unknown`
impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            time, fence, count, ..
        } = self;
        let text = match &self.body {
            Body::Attempt(attempt) => attempt.to_string(),
            Body::Repeats(attempt) => format!("{attempt} again {}", times(*count)),
            Body::Folded { lines } => {
                format!("folded {count} attempts, which would be {lines} lines more")
            }
            Body::Lost => format!(
                "lost {count} attempts: there was no room to record them, or nobody read them"
            ),
            Body::Dropped => format!(
                "dropped {count} attempts: this log was too slow for them, or could not be written"
            ),
        };
        // A line that was read from a file can have anything in it.
        let text = format!("{time:.6} {fence} {text}");
        f.write_str(&printable(text.as_bytes()))
    }
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            verdict,
            operation,
            hook,
            command,
            cgroup,
            rule,
            ..
        } = self;
        write!(f, "{verdict} {operation} ")?;
        if let Some(dialled) = self.dialled {
            let dialled = operation.at(dialled);
            write!(f, "(dialled {dialled}) ")?;
        }
        match self.pid {
            Some(pid) => write!(f, "{hook} pid {pid}")?,
            None => write!(f, "{hook} pid unknown")?,
        }
        if !command.is_empty() {
            write!(f, " ({})", in_parentheses(command))?;
        }
        write!(f, " cgroup {cgroup} rule {rule}")?;
        match &self.comment {
            Some(comment) => write!(f, " ({})", printable(comment.as_bytes())),
            None => Ok(()),
        }
    }
}

fn times(count: u64) -> String {
    match count {
        1 => "once".to_owned(),
        many => format!("{many} times"),
    }
}

/// The moment at which the boot clock (`CLOCK_BOOTTIME`, which goes on across suspend) was 0. To be
/// asked for anew each time: the wall clock may have been set.
#[must_use]
pub fn boot_time() -> Timestamp {
    let now = Timestamp::now();
    clock_gettime(ClockId::CLOCK_BOOTTIME)
        .ok()
        .and_then(|since_boot| now.checked_sub(Duration::from(since_boot)).ok())
        .unwrap_or(now)
}

/// The moment that many nanoseconds later.
#[must_use]
pub fn at(boot_time: Timestamp, boot_ns: u64) -> Timestamp {
    // Past the year 9999 the clock may be off.
    let since = Duration::from_nanos(boot_ns);
    boot_time.checked_add(since).unwrap_or(boot_time)
}

#[cfg(test)]
pub(crate) mod tests {
    use qfence_common::{
        Comm, Halves,
        address::from_v4,
        verdict::{self, NO_RULE},
    };

    use super::*;
    use crate::policy::{names::Names, testing};

    /// An attempt as the programs tell of it.
    pub(crate) fn seen(
        hook: Hook,
        address: [u8; 16],
        protocol: u32,
        port: u32,
        rule: u32,
    ) -> (AttemptKey, Origin) {
        let mut comm = [0; 16];
        comm[..6].copy_from_slice(b"qe\x1bmu\n");
        let key = AttemptKey {
            address: Halves::of(address),
            pid: 4242,
            port,
            protocol,
            hook: hook as u32,
            rule,
            monitored: 0,
        };
        let origin = Origin {
            boot_ns: 1_500_000_000,
            cgroup: 77,
            netns: 5,
            source: Halves::of(from_v4([10, 0, 0, 7])),
            comm: Comm(comm),
            tid: 4243,
            uid: 65534,
            source_port: 40000,
            flags: 0,
        };
        (key, origin)
    }

    /// The line of a first attempt.
    pub(crate) fn line(hook: Hook, address: [u8; 16], protocol: u32, port: u32, rule: u32) -> Line {
        let (key, origin) = seen(hook, address, protocol, port, rule);
        let name = Names::of(&testing::policy(&[], false)).name(rule);
        Line {
            v: VERSION,
            time: at(Timestamp::UNIX_EPOCH, origin.boot_ns),
            fence: "vm1".into(),
            seq: 1,
            body: Body::Attempt(
                Attempt::new(&key, &origin, name, &Process::default())
                    .unwrap()
                    .into(),
            ),
            count: 1,
            total: 1,
        }
    }

    fn loopback() -> Line {
        line(Hook::Connect6, from_v4([127, 0, 0, 1]), 6, 22, 1)
    }

    fn attempt(line: Line) -> Box<Attempt> {
        match line.body {
            Body::Attempt(attempt) => attempt,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn text_is_one_line_that_reads() {
        assert_eq!(
            loopback().to_string(),
            "1970-01-01T00:00:01.500000Z vm1 denied tcp 127.0.0.1:22 connect6 pid 4242 \
             (qe\\x1bmu\\x0a) cgroup 77 rule deny host"
        );
        let v6 = line(Hook::Connect6, Ipv6Addr::LOCALHOST.octets(), 6, 22, NO_RULE);
        assert!(v6.to_string().contains("denied tcp [::1]:22 connect6"));
        let mut unknown = attempt(loopback());
        (unknown.pid, unknown.command) = (None, String::new());
        assert!(
            unknown
                .to_string()
                .contains(" connect6 pid unknown cgroup 77 rule ")
        );
        let mut dialled = attempt(loopback());
        dialled.dialled = Some([10, 0, 2, 2].into());
        assert!(
            dialled
                .to_string()
                .starts_with("denied tcp 127.0.0.1:22 (dialled 10.0.2.2:22) connect6 ")
        );
    }

    #[test]
    fn json_has_the_documented_fields_and_is_read_again() {
        let line = loopback();
        let json = line.to_json().unwrap();
        assert_eq!(
            json,
            r#"{"v":1,"time":"1970-01-01T00:00:01.5Z","fence":"vm1","seq":1,"kind":"attempt","verdict":"denied","layer":"call","hook":"connect6","protocol":"tcp","destination":"127.0.0.1","port":22,"source":"10.0.0.7","source_port":40000,"dialled":null,"rule":"deny host","comment":null,"pid":4242,"tid":4243,"uid":65534,"command":"qe\\x1bmu\\x0a","executable":null,"cgroup":77,"cgroup_path":null,"netns":null,"netns_cookie":5,"count":1,"total":1}"#
        );
        assert_eq!(serde_json::from_str::<Line>(&json).unwrap(), line);
    }

    #[test]
    fn sockets_devices_and_odd_packets_are_named() {
        let socket = line(Hook::SockCreate, [0; 16], 1, 3, verdict::SOCKET_KIND).to_string();
        assert!(socket.contains(" denied icmp raw socket sock_create pid "));
        assert!(socket.ends_with(" rule deny-raw"));
        let device = line(Hook::Device, [0; 16], 10, 200, verdict::DEVICE);
        assert!(
            device
                .to_string()
                .contains(" denied device /dev/net/tun device pid ")
        );
        let json = device.to_json().unwrap();
        assert!(json.contains(r#""layer":"device","hook":"device","device":"/dev/net/tun","#));
        let packet = line(Hook::Egress, [0; 16], 0, 0, verdict::UNPARSED);
        assert!(
            packet
                .to_string()
                .contains(" denied unknown packet egress ")
        );
        for line in [device, packet] {
            let json = line.to_json().unwrap();
            assert_eq!(serde_json::from_str::<Line>(&json).unwrap(), line);
        }
    }

    #[test]
    fn what_has_no_line_of_its_own_is_counted_in_one() {
        let line = |body, count| Line {
            body,
            count,
            ..loopback()
        };
        let again = line(Body::Repeats(attempt(loopback())), 37);
        assert!(
            again
                .to_string()
                .ends_with(" rule deny host again 37 times")
        );
        for (body, text) in [
            (
                Body::Folded { lines: 3 },
                "vm1 folded 7 attempts, which would be 3 lines more",
            ),
            (Body::Lost, "vm1 lost 7 attempts: "),
            (Body::Dropped, "vm1 dropped 7 attempts: "),
        ] {
            let line = line(body, 7);
            assert!(line.to_string().contains(text), "{line}");
            let json = line.to_json().unwrap();
            assert_eq!(serde_json::from_str::<Line>(&json).unwrap(), line);
        }
    }
}

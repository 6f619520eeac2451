//! An attempt, as a record line reports it.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use jiff::Timestamp;
use qfence_common::{
    AttemptKey, Hook, NO_UID, Origin, event::OWN_LISTENER, hook::Layer, unix::Name,
};
use serde::{Deserialize, Serialize};

use crate::{
    base::{
        mac::Mac,
        printable::{in_parentheses, printable},
    },
    policy::names::RuleName,
    record::{operation::Operation, process::Process, resolved_names::ResolvedNames},
};

/// The first attempt of an attempt key, or its repeats.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// `denied`, or `would-deny` in monitor mode.
    pub verdict: String,
    /// The layer of the hook: `call`, `packet`, `socket`, `device` or `frame`.
    pub layer: String,
    /// The name of the hook, as in [`Hook::name`].
    pub hook: String,
    /// The operation that was attempted.
    #[serde(flatten)]
    pub operation: Operation,
    /// The source address, if the socket had one. In repeats, that of the first attempt.
    pub source: Option<IpAddr>,
    /// The source port, if the socket had one. In repeats, that of the first attempt.
    pub source_port: Option<u32>,
    /// The network device of the guest that sent it, at the hooks for frames.
    #[serde(default)]
    pub interface: Option<Arc<str>>,
    /// The source MAC address, at the hooks for frames. In repeats, that of the first attempt.
    #[serde(default)]
    pub source_mac: Option<Mac>,
    /// Since when the destination is not in force any more by the names that led there.
    #[serde(default)]
    pub expired: Option<Timestamp>,
    /// The address that a guest dialled, if the QEMU that qfence started has translated it.
    pub dialled: Option<IpAddr>,
    /// Whether a rule for the set `self` would allow it.
    #[serde(rename = "self", default)]
    pub of_self: bool,
    /// The rule that decided.
    pub rule: Arc<str>,
    /// The comment of the rule in its profile.
    pub comment: Option<Arc<str>>,
    /// The process id, in the initial pid namespace.
    pub pid: Option<u32>,
    /// The thread id, in the initial pid namespace. In repeats, that of the first attempt; none once the process is
    /// another one or has executed another program.
    pub tid: Option<u32>,
    /// The user, in the initial user namespace. In repeats, as for `tid`.
    pub uid: Option<u32>,
    /// The name of the thread (`comm`), safe to print; empty if not known. The process can forge it. In repeats, as for
    /// `tid`.
    pub command: String,
    /// The path of the process's executable, shortened. A process that can have a user namespace can forge it.
    pub executable: Option<Arc<str>>,
    /// The id of a cgroup (the inode of its directory): that of the process, or that of the socket if another process
    /// made it.
    pub cgroup: u64,
    /// The path of the process's cgroup.
    pub cgroup_path: Option<Arc<str>>,
    /// The inode of the process's network namespace.
    pub netns: Option<u64>,
    /// The cookie of the socket's network namespace. The kernel never reuses a cookie.
    pub netns_cookie: Option<u64>,
}

/// The kernel returned an attempt that the programs of this version do not record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the kernel returned an attempt that this version's programs do not record: {0:?}")]
pub struct NotUnderstood(AttemptKey);

impl Attempt {
    /// An attempt with this key. `name` is the name of the Unix socket that its first event had, and `rule` that of its
    /// rule.
    ///
    /// # Errors
    /// If the number of the hook or of a port is invalid.
    pub fn new(
        key: &AttemptKey,
        name: Option<&Name>,
        origin: &Origin,
        rule: RuleName,
        process: &Process,
    ) -> Result<Self, NotUnderstood> {
        let operation = Operation::of(key, name);
        let ports = match operation {
            Operation::Destination { port, .. } => [port, origin.source_port],
            Operation::Local { local_port, .. } => [local_port, origin.source_port],
            _ => [0, origin.source_port],
        };
        let is_port = |port: &u32| *port <= u32::from(u16::MAX);
        let hook = Hook::from_number(key.hook)
            // Nothing is refused on its way to a guest.
            .filter(|hook| *hook != Hook::FrameOut && ports.iter().all(is_port))
            .ok_or(NotUnderstood(*key))?;
        let known = |number: u32| (number != 0).then_some(number);
        let source = Ipv6Addr::from(origin.source.address()).to_canonical();
        let comm = origin
            .comm
            .0
            .split(|byte| *byte == 0)
            .next()
            .unwrap_or_default();
        // The origin describes the process that made the first attempt, not another one.
        let is_same = !process.has_changed;
        // No process of the host sends a frame. The place of its cgroup has the MAC address.
        let is_frame = hook.is_frame();
        let mac = is_frame.then_some(origin.cgroup).filter(|mac| *mac != 0);
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
            interface: None,
            source_mac: mac.map(Mac::from_number),
            expired: None,
            dialled: operation
                .address()
                .and_then(|address| process.dialled(key, origin, address)),
            operation,
            of_self: origin.flags & OWN_LISTENER != 0,
            rule: rule.rule,
            comment: rule.comment,
            pid: known(key.pid).filter(|_| !is_frame),
            tid: known(origin.tid).filter(|_| is_same),
            uid: (origin.uid != NO_UID && is_same).then_some(origin.uid),
            command: if is_same {
                printable(comm)
            } else {
                String::new()
            },
            executable: process.executable.clone(),
            cgroup: if is_frame { 0 } else { origin.cgroup },
            cgroup_path: process.cgroup_path.clone(),
            netns: process.netns,
            netns_cookie: (origin.netns != 0).then_some(origin.netns),
        })
    }
}

impl Attempt {
    /// The attempt with the name of the guest's network device.
    #[must_use]
    pub fn at(mut self, device: Option<Arc<str>>) -> Self {
        self.interface = device;
        self
    }

    /// The attempt with the names that led to its destination.
    #[must_use]
    pub fn named(mut self, resolved: &ResolvedNames) -> Self {
        if let Operation::Destination {
            destination, names, ..
        } = &mut self.operation
        {
            *names = resolved.of(*destination);
            self.expired = resolved.ended(*destination);
        }
        self
    }

    /// `frame t0 from 52:54:00:12:34:56 192.168.122.5:40000`, as far as it is known.
    fn write_guest(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let device = self.interface.as_deref().unwrap_or("unknown device");
        write!(f, "{} {}", self.hook, printable(device.as_bytes()))?;
        if let Some(mac) = self.source_mac {
            write!(f, " from {mac}")?;
        }
        match (self.source, self.source_port) {
            (Some(source), Some(port)) => {
                let port = u16::try_from(port).unwrap_or_default();
                write!(f, " {}", SocketAddr::new(source, port))
            }
            (Some(source), None) => write!(f, " {source}"),
            (None, _) => Ok(()),
        }
    }

    /// Whether it may be of getaddrinfo(3): C libraries sort the addresses of a name by connecting a UDP socket to each, by
    /// which nothing is sent.
    fn may_be_sorting(&self) -> bool {
        let is_connect = [Hook::Connect4, Hook::Connect6].map(Hook::name);
        let is_of_name = matches!(
            &self.operation,
            Operation::Destination { protocol, names, .. } if protocol == "udp" && !names.is_empty()
        );
        is_of_name && is_connect.contains(&&*self.hook)
    }

    fn is_of_guest(&self) -> bool {
        self.layer == Layer::Frame.name()
    }

    /// The option that would allow a local port that the closure of listeners refuses. There is none for port 0 and for
    /// other protocols than TCP and UDP.
    #[must_use]
    pub fn listen_option(&self) -> Option<String> {
        match &self.operation {
            Operation::Local {
                protocol,
                local_port,
                ..
            } if *local_port != 0 && matches!(protocol.as_str(), "tcp" | "udp") => {
                Some(format!("--allow-listen {protocol}:{local_port}"))
            }
            _ => None,
        }
    }
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Told(self, None).fmt(f)
    }
}

/// An attempt of a workload, as text.
pub(super) struct Told<'a>(pub(super) &'a Attempt, pub(super) Option<&'a str>);

impl fmt::Display for Told<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(attempt, workload) = self;
        let Attempt {
            verdict,
            operation,
            hook,
            command,
            cgroup,
            rule,
            ..
        } = attempt;
        write!(f, "{verdict} {operation} ")?;
        if let Some(expired) = attempt.expired {
            write!(f, "(expired {}) ", expired.strftime("%FT%TZ"))?;
        }
        if let Some(dialled) = attempt.dialled {
            let dialled = operation.at(dialled);
            write!(f, "(dialled {dialled}) ")?;
        }
        if attempt.is_of_guest() {
            attempt.write_guest(f)?;
            write!(f, " rule {rule}")?;
        } else {
            match attempt.pid {
                Some(pid) => write!(f, "{hook} pid {pid}")?,
                None => write!(f, "{hook} pid unknown")?,
            }
            if !command.is_empty() {
                write!(f, " ({})", in_parentheses(command))?;
            }
            write!(f, " cgroup {cgroup}")?;
            if let Some(workload) = workload {
                write!(f, " of {}", printable(workload.as_bytes()))?;
            }
            write!(f, " rule {rule}")?;
        }
        if let Some(comment) = &attempt.comment {
            write!(f, " ({})", printable(comment.as_bytes()))?;
        }
        match operation {
            Operation::Destination { protocol, port, .. } if attempt.of_self => write!(
                f,
                " (the listener was made in this fence: --allow {protocol}:self:{port})"
            ),
            _ if attempt.may_be_sorting() => {
                f.write_str(" (perhaps to sort addresses: nothing was sent)")
            }
            _ => match attempt.listen_option() {
                Some(option) => write!(f, " ({option})"),
                None => Ok(()),
            },
        }
    }
}

//! A refusal as people and programs read it.

use std::{fmt, sync::Arc, time::Duration};

use jiff::Timestamp;
use nix::time::{ClockId, clock_gettime};
use qfence_common::{Event, Hook};
use serde::Serialize;

use crate::{policy::names::Names, say::printable, what::What};

/// One refusal. Serialized, its fields are those of the JSON log, one object a line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Record {
    /// When, wall clock, RFC 3339 in UTC.
    pub time: Timestamp,
    /// The name of the fence.
    pub fence: Arc<str>,
    /// `refused`, or `would-refuse` where the policy is only monitored.
    pub verdict: &'static str,
    /// What was refused.
    #[serde(flatten)]
    pub what: What,
    /// The hook that refused it, by [`Hook::name`].
    pub hook: &'static str,
    /// The process id, in the initial pid namespace; 0 if it is not known.
    pub pid: u32,
    /// The name of the thread (`comm`), made safe to print; empty if it is not known.
    pub command: String,
    /// The id of the process's cgroup: the inode of its directory.
    pub cgroup: u64,
    /// The rule that decided.
    pub rule: Arc<str>,
    /// What its profile says of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comment: Option<Arc<str>>,
}

impl Record {
    /// The record of an event of the fence `fence`, whose rules are `names`, at `boot_time`, the
    /// moment at which the boot clock was 0.
    #[must_use]
    pub fn new(event: &Event, fence: &Arc<str>, names: &Names, boot_time: Timestamp) -> Self {
        let name = names.name(event.rule);
        let comm = event
            .comm
            .split(|byte| *byte == 0)
            .next()
            .unwrap_or_default();
        Self {
            // Past the year 9999 the clock may be off.
            time: boot_time
                .checked_add(Duration::from_nanos(event.boot_ns))
                .unwrap_or(boot_time),
            fence: Arc::clone(fence),
            verdict: if event.monitored == 0 {
                "refused"
            } else {
                "would-refuse"
            },
            what: What::of(event),
            hook: Hook::from_number(event.hook).map_or("unknown", Hook::name),
            pid: event.pid,
            command: printable(comm),
            cgroup: event.cgroup,
            rule: name.rule,
            comment: name.comment,
        }
    }
}

/// `TIME FENCE refused tcp 127.0.0.1:22 connect4 pid 4242 (qemu-system-x86) cgroup 77 rule NAME`
impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            time,
            fence,
            verdict,
            what,
            hook,
            pid,
            command,
            cgroup,
            rule,
            comment,
        } = self;
        write!(
            f,
            "{time:.6} {fence} {verdict} {what} {hook} pid {pid} ({command}) \
             cgroup {cgroup} rule {rule}"
        )?;
        match comment {
            Some(comment) => write!(f, " ({})", printable(comment.as_bytes())),
            None => Ok(()),
        }
    }
}

/// One line of the log.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub enum Line {
    /// A refusal.
    Refused(Record),
    /// Refusals that are not in the log.
    Lost(Lost),
}

/// How many refusals found the ring full since the last line of this kind.
#[derive(Clone, Debug, Serialize)]
pub struct Lost {
    /// When this was noticed.
    pub time: Timestamp,
    /// The name of the fence.
    pub fence: Arc<str>,
    /// How many.
    pub lost: u64,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(record) => record.fmt(f),
            Self::Lost(Lost { time, fence, lost }) => {
                write!(
                    f,
                    "{time:.6} {fence} lost {lost} refusals: the ring was full"
                )
            }
        }
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

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use qfence_common::{
        address::from_v4,
        verdict::{self, NO_RULE},
    };

    use super::*;
    use crate::policy::testing;

    fn record(address: [u8; 16], rule: u32) -> Record {
        of(Hook::Connect6, address, 6, 22, rule)
    }

    fn of(hook: Hook, address: [u8; 16], protocol: u32, port: u32, rule: u32) -> Record {
        let mut comm = [0; 16];
        comm[..6].copy_from_slice(b"qe\x1bmu\n");
        let event = Event {
            boot_ns: 1_500_000_000,
            cgroup: 77,
            address,
            comm,
            pid: 4242,
            port,
            protocol,
            hook: hook as u32,
            rule,
            monitored: 0,
        };
        Record::new(
            &event,
            &"vm1".into(),
            &Names::of(&testing::policy(&[], false)),
            Timestamp::UNIX_EPOCH,
        )
    }

    #[test]
    fn text_is_one_line_that_reads() {
        assert_eq!(
            record(from_v4([127, 0, 0, 1]), 1).to_string(),
            "1970-01-01T00:00:01.500000Z vm1 refused tcp 127.0.0.1:22 connect6 pid 4242 \
             (qe\\x1bmu\\x0a) cgroup 77 rule deny host"
        );
        assert!(
            record(Ipv6Addr::LOCALHOST.octets(), NO_RULE)
                .to_string()
                .contains("refused tcp [::1]:22 connect6")
        );
    }

    #[test]
    fn json_has_the_documented_fields() {
        let json = serde_json::to_string(&record(from_v4([127, 0, 0, 1]), NO_RULE)).unwrap();
        assert_eq!(
            json,
            r#"{"time":"1970-01-01T00:00:01.5Z","fence":"vm1","verdict":"refused","protocol":"tcp","destination":"127.0.0.1","port":22,"hook":"connect6","pid":4242,"command":"qe\\x1bmu\\x0a","cgroup":77,"rule":"no-policy"}"#
        );
    }

    #[test]
    fn sockets_devices_and_odd_packets_are_named() {
        let socket = of(Hook::SockCreate, [0; 16], 1, 3, verdict::SOCKET_KIND);
        assert!(
            socket
                .to_string()
                .contains(" refused icmp raw socket sock_create pid ")
        );
        assert!(socket.to_string().ends_with(" rule deny-raw"));
        let device = of(Hook::Device, [0; 16], 10, 200, verdict::DEVICE);
        assert!(
            device
                .to_string()
                .contains(" refused device /dev/net/tun device pid ")
        );
        assert!(
            serde_json::to_string(&device)
                .unwrap()
                .contains(r#""verdict":"refused","device":"/dev/net/tun","hook":"device""#)
        );
        let packet = of(Hook::Egress, [0; 16], 0, 0, verdict::UNPARSED);
        assert!(
            packet
                .to_string()
                .contains(" refused unknown packet egress ")
        );
        assert!(
            serde_json::to_string(&packet)
                .unwrap()
                .ends_with(r#""rule":"unparsed"}"#)
        );
    }

    fn lost(lost: u64) -> Line {
        Line::Lost(Lost {
            time: Timestamp::UNIX_EPOCH,
            fence: "vm1".into(),
            lost,
        })
    }

    #[test]
    fn losses_are_lines_of_their_own() {
        assert_eq!(
            lost(7).to_string(),
            "1970-01-01T00:00:00.000000Z vm1 lost 7 refusals: the ring was full"
        );
        assert_eq!(
            serde_json::to_string(&lost(7)).unwrap(),
            r#"{"time":"1970-01-01T00:00:00Z","fence":"vm1","lost":7}"#
        );
    }
}

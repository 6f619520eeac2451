//! The command line of `attach`.

use std::{path::PathBuf, str::FromStr};

use clap::{ArgAction, Args, ValueEnum};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use super::{PolicyArgs, exec::device_name};
use crate::{
    base::mac::Mac,
    kernel::DenyWith,
    observe::metrics::address::Address,
    policy::Dns,
    record::target::{Format, LogTarget},
    workload::Target,
};

const NOTES: &str = "\
Examples:
  sudo qfence-user attach --pid 4242
  sudo qfence-user attach --unit nginx.service --profile internet-only
  sudo qfence-user attach --cgroup /sys/fs/cgroup/vms.slice --profile internet-only
  sudo qfence-user attach --pid 4242 --name vm1 --detach
  sudo qfence-user attach --device tap0 --profile internet-only

No process is moved. The programs are attached to the existing cgroup. They apply to all processes in it and below it, also \
to those that are started later. Connections that the policy denies are ended, and the others continue. \
See docs/attach.md for what a fence does not close for processes that run already: sockets of managers (D-Bus, Docker), \
other processes, packet sockets of root.

RULEs are those of `exec`: see `qfence-user exec --help`.

Exit status: 0 when the target has ended, after `qfence-user rm`, and after Ctrl-C or SIGTERM once the fence is in force; or
  125  qfence failed. Nothing is fenced, unless `qfence-user ps` shows the fence: that of a device for --pod-device stays
  130, 143  Ctrl-C, SIGTERM before the fence was in force. Nothing is fenced";

/// What to do with the fence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OnExit {
    /// Detach it: its processes are not fenced any more
    Release,
    /// Keep it, without a supervisor, until `qfence-user rm`
    Keep,
}

/// The target of `attach`.
#[derive(Clone, Debug, Default, Args)]
#[group(id = "target", multiple = false)]
pub struct TargetArgs {
    /// Fence the cgroup of a process
    #[arg(long, value_name = "PID", help_heading = "Target", value_parser = clap::value_parser!(i32).range(1..))]
    pid: Option<i32>,

    /// Fence a cgroup, by its directory, or by its path below the mount of cgroup2
    #[arg(long, value_name = "PATH", help_heading = "Target")]
    cgroup: Option<PathBuf>,

    /// Fence a unit of systemd's system manager, such as a service or a slice
    #[arg(long, value_name = "NAME", help_heading = "Target")]
    unit: Option<String>,

    /// Fence a container of podman, Docker or containerd, by its name, its id or the beginning of that
    #[arg(long, value_name = "[ENGINE:]NAME|ID", help_heading = "Target")]
    container: Option<String>,

    /// Fence a running guest of libvirt's system instance
    #[arg(long, value_name = "NAME", help_heading = "Target")]
    domain: Option<String>,
}

impl TargetArgs {
    /// The target; `None` if only devices are given.
    #[must_use]
    pub fn target(&self) -> Option<Target> {
        let process = self.pid.map(|pid| Target::Process(Pid::from_raw(pid)));
        let named = [
            self.cgroup.clone().map(Target::Cgroup),
            self.unit.clone().map(Target::Unit),
            self.container.clone().map(Target::Container),
            self.domain.clone().map(Target::Domain),
        ];
        process.or_else(|| named.into_iter().flatten().next())
    }
}

/// What a process that waits for a target to be started anew knows of the last time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Again {
    /// The name of the fence.
    pub name: String,
    /// The path of the last cgroup below the mount of cgroup2.
    pub cgroup: PathBuf,
    /// A time at which the next cgroup did not exist, in nanoseconds since boot.
    pub since: u64,
    /// How often it has failed to fence the target since then.
    pub failed: u32,
}

impl FromStr for Again {
    type Err = serde_json::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        serde_json::from_str(text)
    }
}

/// `qfence-user attach`.
#[derive(Clone, Debug, Args)]
#[command(
    after_help = NOTES,
    override_usage = "qfence-user attach --pid PID|--cgroup PATH|--unit NAME|--container NAME|--domain NAME|--device NAME [OPTIONS]"
)]
pub struct Attach {
    /// What to fence
    #[command(flatten)]
    pub target: TargetArgs,

    /// Fence a network device of this host: what a guest or container sends into it is judged; can be repeated
    ///
    /// A tap device, a macvtap device, or the host's end of a container's veth pair. Without another target, no process is
    /// fenced.
    #[arg(
        long,
        value_name = "NAME",
        help_heading = "Target",
        value_parser = device_name
    )]
    pub device: Vec<String>,

    /// A MAC address that the guests behind the devices may use; can be repeated [default: that of the first frame]
    #[arg(long, value_name = "MAC", requires = "device")]
    pub mac: Vec<Mac>,

    /// Also fence the host's ends of the veth pairs in the target's own network namespace
    ///
    /// For guests in a pod or container whose frames leave by a tap device there, and not by sockets, as KubeVirt's do. Each
    /// such device gets a fence of its own with the same policy, without a supervisor, that ends with the device.
    /// /dev/net/tun and /dev/vhost-net may be opened in the target then.
    #[arg(
        long,
        help_heading = "Target",
        requires = "target",
        conflicts_with = "allow_foreign_netns"
    )]
    pub pod_device: bool,

    /// Name of the fence [default: the name of the cgroup and a unique suffix, such as nginx-service-5f3a9c]
    ///
    /// It is said when the fence is in force, and `qfence-user ps` shows it. A fence with devices alone is called after the
    /// first.
    #[arg(long)]
    pub name: Option<String>,

    /// Allowed and denied destinations
    #[command(flatten)]
    pub policy: PolicyArgs,

    /// Refuse nothing: allow and log attempts that the policy denies
    #[arg(long)]
    pub monitor: bool,

    /// Whether the profile's exception for nameservers (those in resolv.conf, port 53) applies
    #[arg(long, value_enum, default_value_t = Dns::Auto)]
    pub dns: Dns,

    /// Error of a refused call
    #[arg(long, value_enum, default_value_t = DenyWith::Refused)]
    pub deny_with: DenyWith,

    /// Where to log refusals, besides the fence's own record; can be repeated
    ///
    /// As for `exec`.
    #[arg(
        long,
        value_name = "PATH[,max=SIZE][,keep=NUMBER]|stderr|journald|syslog[:SOCKET]|none",
        default_value = "stderr"
    )]
    pub log: Vec<LogTarget>,

    /// Format of logs to files and standard error, unless --log has a prefix
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub log_format: Format,

    /// Also log what is let through: each destination when it is first reached, and its traffic each minute
    #[arg(long)]
    pub log_allowed: bool,

    /// Serve the fence's counters as OpenMetrics, at /metrics
    #[arg(long, value_name = "ADDRESS:PORT|unix:PATH")]
    pub metrics: Option<Address>,

    /// What to do with the fence when qfence is ended by a signal, such as that of Ctrl-C
    ///
    /// If qfence is killed, the fence is kept.
    #[arg(long, value_enum, default_value_t = OnExit::Release)]
    pub on_exit: OnExit,

    /// Return when the fence is in force, and leave it without a supervisor
    ///
    /// Changes of this host and of the target's own network namespace are not followed then: only the packet layer
    /// refuses an address that this host gets later, and a new nameserver is not excepted. Refusals go to no log:
    /// `qfence-user logs NAME` shows those that the kernel keeps. `qfence-user set` updates the policy.
    #[arg(long, conflicts_with_all = ["metrics", "on_exit", "log_format"])]
    pub detach: bool,

    /// Fence the unit, container or domain again each time that it is started anew
    ///
    /// Its new cgroup is fenced as soon as it is found and the fence is made: about a second, in which it is open. A line
    /// on standard error and one of the record say for how long. The name stays; the policy is that of the options again.
    /// docs/systemd.md, docs/containers.md and docs/libvirt.md say how a target is fenced before its first instruction.
    #[arg(long, conflicts_with_all = ["detach", "pid", "cgroup"])]
    pub restart: bool,

    /// What is known of the target's last cgroup, while this process waits for the next
    #[arg(long, hide = true, requires = "restart")]
    pub again: Option<Again>,

    /// Fence a cgroup that has other processes besides those of the target
    ///
    /// Without this option, cgroups are refused that many programs share: slices, sessions of users, and, for
    /// --pid, every cgroup with a process that does not descend from the given one.
    #[arg(long)]
    pub whole_cgroup: bool,

    /// Go on although processes have internet sockets that were made in another cgroup: these are not fenced
    #[arg(long)]
    pub allow_foreign_sockets: bool,

    /// Allow raw, UDP-Lite and L2TP sockets
    ///
    /// Their packets are judged too, except for the copies of multicast and broadcast that the host gets.
    #[arg(long)]
    pub allow_raw: bool,

    /// Allow sockets in network namespaces other than that of the target
    #[arg(long)]
    pub allow_foreign_netns: bool,

    /// Allow the services in the target's own network namespace: at loopback, and at its own addresses
    ///
    /// These are services of its pod, not of this host. Without this option they are refused like this host's. What leaves
    /// the namespace is judged as ever. Only for a target with a network namespace of its own.
    #[arg(long)]
    pub pod_loopback: bool,

    /// Allow /dev/net/tun, /dev/vhost-net and /dev/vhost-vsock: networks that the fence does not see
    #[arg(long)]
    pub allow_unfenced_net: bool,

    /// Show the steps of the start; twice: also the decisions of each eBPF program
    #[arg(short, long, action = ArgAction::Count)]
    pub verbose: u8,
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        attach: Attach,
    }

    #[test]
    fn there_is_one_target() {
        let parse = |words: &[&str]| Line::try_parse_from([&["x"], words].concat());
        let target = |words: &[&str]| parse(words).unwrap().attach.target.target().unwrap();
        assert_eq!(target(&["--pid", "7"]), Target::Process(Pid::from_raw(7)));
        assert_eq!(target(&["--cgroup", "a"]), Target::Cgroup("a".into()));
        assert_eq!(target(&["--unit", "a"]), Target::Unit("a".into()));
        assert_eq!(target(&["--container", "a"]), Target::Container("a".into()));
        assert_eq!(target(&["--domain", "a"]), Target::Domain("a".into()));
        let devices = ["--device", "tap0", "--device", "tap1"];
        let attach = parse(&devices).unwrap().attach;
        assert_eq!((attach.target.target(), attach.device.len()), (None, 2));
        let both = parse(&["--domain", "a", "--device", "tap0"]).unwrap();
        assert!(both.attach.target.target().is_some());
        for words in [
            &["--pid", "7", "--cgroup", "a"][..],
            &["--pid", "0"],
            &["--pid", "x"],
            &["--device", "a b"],
            &["--pid", "7", "--mac", "02:00:00:00:00:01"],
            &["--device", "tap0", "--pod-device"],
            &["--pid", "7", "--pod-device", "--allow-foreign-netns"],
        ] {
            assert!(parse(words).is_err(), "{words:?}");
        }
        assert!(parse(&["--pid", "7", "--detach", "--on-exit", "keep"]).is_err());
    }

    #[test]
    fn what_can_be_started_anew_is_followed() {
        let parse = |words: &[&str]| Line::try_parse_from([&["x"], words].concat());
        let again = Again {
            name: "f".into(),
            cgroup: "a/b.service".into(),
            since: 7,
            failed: 1,
        };
        let text = serde_json::to_string(&again).unwrap();
        let restart = ["--unit", "b", "--restart", "--again", &text];
        assert_eq!(parse(&restart).unwrap().attach.again, Some(again));
        for words in [
            &["--pid", "7", "--restart"][..],
            &["--cgroup", "a", "--restart"],
            &["--unit", "b", "--restart", "--detach"],
            &["--unit", "b", "--again", &text],
            &["--unit", "b", "--restart", "--again", "{}"],
        ] {
            assert!(parse(words).is_err(), "{words:?}");
        }
    }
}

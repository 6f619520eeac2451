//! The command line of `exec`.

mod confinement;
mod devices;
mod notes;

use std::ffi::OsString;

use clap::{ArgAction, Args, ValueEnum};
use confinement::ConfinementArgs;
use devices::DeviceArgs;
pub use devices::NewTap;
pub(in crate::cli) use devices::device_name;

use super::PolicyArgs;
use crate::{
    fence::{beneath::CgroupParent, integrity::OnDamage, limits::Limits},
    kernel::DenyWith,
    observe::metrics::address::Address,
    policy::Dns,
    record::target::{Format, LogTarget},
    supervise::leavers::OnLeave,
};

/// A way out of the fence that is no internet socket, and that is closed for the command of a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Closure {
    /// D-Bus, systemd, container engines, VM managers
    Managers,
    /// Other processes of the user: tracing, signals, their namespaces
    Processes,
}

/// Whether to do something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "lower")]
pub enum YesNo {
    /// Do it
    Yes,
    /// Do not
    No,
}

/// `qfence-user exec`.
#[derive(Debug, Args)]
#[command(
    after_help = notes::notes(),
    args_override_self = true,
    override_usage = "qfence-user exec [OPTIONS] -- COMMAND [ARGS]..."
)]
pub struct Exec {
    /// Name of the fence [default: the command's name and a unique suffix]
    #[arg(long)]
    pub name: Option<String>,

    /// User to run the command as [default: the user who called sudo, doas or
    /// pkexec]
    ///
    /// If a group is given, it is the only group of the command, for root too. Otherwise the command has
    /// all groups of the user, so that /dev/kvm works.
    #[arg(long, value_name = "NAME|UID[:GROUP]")]
    pub user: Option<String>,

    /// Network namespace for qfence and the command, by its name in `ip netns`
    ///
    /// As with `ip netns exec`, files in /etc/netns/NAME appear in /etc for the command. The host of the
    /// fence is then this namespace, with its addresses and with the nameservers of its resolv.conf.
    #[arg(long, value_name = "NAME")]
    pub netns: Option<String>,

    /// Allowed and denied destinations
    #[command(flatten)]
    pub policy: PolicyArgs,

    /// Refuse nothing: allow and log attempts that the policy denies
    #[arg(long)]
    pub monitor: bool,

    /// Whether the profile's exception for nameservers (those in resolv.conf, port 53) applies
    #[arg(long, value_enum, default_value_t = Dns::Auto)]
    pub dns: Dns,

    /// Error of a refused call, and answer to a refused frame of a guest's device
    ///
    /// A frame is answered as a router would do it: TCP by a reset, the rest by an ICMP error for "administratively
    /// prohibited", with `unreachable` for an unreachable port. With `drop` it is dropped without an answer, and a call
    /// gets the error of `refused`.
    #[arg(long, value_enum, default_value_t = DenyWith::Refused)]
    pub deny_with: DenyWith,

    /// Where to log refusals, besides the fence's own record; can be repeated
    ///
    /// Lines are appended to a file. A full one is renamed to PATH.1, and so on: with json:PATH,max=100M,keep=3 at
    /// 100 MB, and three earlier files stay. By default all have 256 MB in all; max=none is for a program that
    /// renames them itself. SIGUSR1 makes qfence reopen the file. The file can be a device, or a FIFO
    /// that has a reader. A symbolic link is followed only if the link and its directory belong to root,
    /// because the command may run as the user who called sudo. `syslog` is the daemon at /dev/log, with
    /// messages as in RFC 5424. A prefix selects the format of one log: text:PATH, json:PATH, json:stderr.
    /// Standard output is the command's: /dev/stdout writes to it all the same, `stdout` and `-` are errors.
    #[arg(
        long,
        value_name = LogTarget::SYNTAX,
        default_value = "stderr"
    )]
    pub log: Vec<LogTarget>,

    /// Format of logs to files and standard error, unless --log has a prefix
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub log_format: Format,

    /// Also log what is let through: each destination when it is first reached, and its traffic each minute
    ///
    /// `qfence-user policy suggest --allowed` makes a profile of it that allows only these destinations.
    #[arg(long)]
    pub log_allowed: bool,

    /// Let rules by name lead to private networks (10.0.0.0/8, fc00::/7 and the other members of the set lan)
    ///
    /// Without it their addresses are taken out of the answers for names, because whoever owns a name chooses its addresses.
    /// No name ever leads to this host.
    #[arg(long)]
    pub names_private: bool,

    /// Serve the fence's counters as OpenMetrics, at /metrics
    ///
    /// The server runs until the command ends. `qfence-user metrics` serves all fences.
    #[arg(long, value_name = "ADDRESS:PORT|unix:PATH")]
    pub metrics: Option<Address>,

    /// Do not end processes that outlive the command; they stay fenced
    ///
    /// qfence returns when the command has ended, and supervises the fence in the background as long as
    /// processes remain: it follows this host and logs refusals, except to standard error.
    #[arg(long)]
    pub keep: bool,

    /// End everything in the fence when qfence ends in any way, even if it is killed [default: yes in a unit
    /// of systemd, otherwise no]
    ///
    /// Another process of qfence, in another cgroup, watches the supervisor. With `no`, processes continue in
    /// their fence without a supervisor. With --keep, everything ends when the background supervisor ends; a
    /// signal to it, as by `systemctl stop`, goes to all processes in the fence.
    #[arg(
        long,
        value_enum,
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "yes",
        value_name = "yes|no"
    )]
    pub die_with_supervisor: Option<YesNo>,

    /// Where the cgroup of the fence is made [default: auto]
    ///
    /// With `auto` it is made beneath the cgroup of this process in a unit of systemd, so that the limits of the unit,
    /// its IPAddressDeny= and its KillMode= apply to the command; otherwise in the cgroup `qfence` at the top, which
    /// is `top`. A PATH is a cgroup that exists, as for `attach --cgroup`, for example a slice. Only root may be able to
    /// move processes out of it.
    #[arg(
        long,
        value_name = "auto|top|PATH",
        default_value = "auto",
        hide_default_value = true
    )]
    pub cgroup_parent: CgroupParent,

    /// What to do if a link, a pin, the policy or the cgroup of the fence is gone, or if the command has
    /// left the cgroup
    ///
    /// Only root can damage a fence in this way. qfence checks once per second while it runs.
    #[arg(long, value_enum, default_value_t = OnDamage::Report)]
    pub on_damage: OnDamage,

    /// What to do with a process that has left the cgroup of the fence
    ///
    /// A process cannot leave by itself, but root and systemd can move it. Sockets that it makes outside are
    /// not fenced. qfence looks once per second while it runs.
    #[arg(long, value_enum, default_value_t = OnLeave::Kill)]
    pub on_leave: OnLeave,

    /// Allow raw, UDP-Lite and L2TP sockets
    ///
    /// Their packets are judged too, with one exception: IPv4 multicast and broadcast of a process that
    /// may make raw sockets, root above all. Of these the kernel gives the host a copy before the eBPF
    /// programs run. A sender that writes its own IP header can direct this copy to any UDP service of
    /// the host.
    #[arg(long)]
    pub allow_raw: bool,

    /// Allow sockets in network namespaces that were made outside the fence
    ///
    /// A process can join the namespace of a container of its own user (`nsenter -U -n`). The network of
    /// that container (pasta, slirp4netns) runs outside the fence and leads to this host. Without this
    /// option, sockets in such a namespace are refused; namespaces made in the fence are not affected.
    /// With it, the command can also trace and signal other processes of its user, and use their files, which
    /// lead to the sockets that are masked without --allow-bus.
    #[arg(long)]
    pub allow_foreign_netns: bool,

    /// Let the command use D-Bus, systemd, container engines and VM managers
    ///
    /// These run programs outside the fence for their user; systemd also moves a process out of it. Without
    /// this option, the command of a user has none of the groups that may use them (docker, libvirt, ...),
    /// and their sockets are masked in its mount namespace: the buses, systemd, Docker, Podman, containerd,
    /// CRI-O, libvirt, LXD, Incus, snapd, and the servers of tmux and screen. Without Landlock (before Linux
    /// 6.12, or with --allow-foreign-netns), eBPF programs refuse their sockets too, if bpf is an active
    /// security module (Linux 6.0, on aarch64 6.4).
    #[arg(long)]
    pub allow_bus: bool,

    /// Fail if one of these cannot be closed for the command; without this option that is a warning
    ///
    /// It depends on the kernel, on the capabilities of qfence and on other options. `doctor` shows it.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "CLOSURE,...")]
    pub require: Vec<Closure>,

    /// First run the short form of `verify`; start nothing if it fails
    #[arg(long)]
    pub verify: bool,

    /// Allow processes in the fence to gain privileges, for instance by set-user-ID executables
    #[arg(long)]
    pub allow_new_privs: bool,

    /// Allow 32-bit and x32 processes all socket options
    ///
    /// The kernel runs the eBPF programs only for options that 64-bit calls set. So a system call
    /// filter (seccomp) refuses the options that matter to 32-bit calls, all options set by
    /// socketcall(2), x32 calls, and io_uring to 32-bit calls. With this option, pings to the broadcast
    /// addresses of this host's networks reach this host, and so do the reports that the kernel sends when
    /// a process joins a multicast group. Rules for `self` have no effect then.
    #[arg(long)]
    pub allow_compat_sockopt: bool,

    /// More ways out that are closed, and what the command keeps
    #[command(flatten)]
    pub confinement: ConfinementArgs,

    /// Network devices of guests
    #[command(flatten)]
    pub devices: DeviceArgs,

    /// Allow a QEMU to have networks that the fence does not see
    ///
    /// Without this option, a QEMU is refused if its arguments give its guest such a network: bridge helper,
    /// macvtap, vsock, Unix sockets, inherited descriptors, a tap that QEMU would make. A tap that exists is
    /// fenced; with this option it is not. qfence does not examine scripts that start QEMU, nor commands to
    /// QEMU's monitor. But without this option nothing in the fence can open /dev/net/tun or
    /// /dev/vhost-vsock, nor /dev/vhost-net unless it is for a fenced tap.
    #[arg(long)]
    pub allow_unfenced_net: bool,

    /// Pass on N descriptors after the first three; all others are closed
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub preserve_fds: u16,

    /// Show the steps of the start; twice: also the decisions of each eBPF program
    #[arg(short, long, action = ArgAction::Count)]
    pub verbose: u8,

    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,

    /// Resource limits of the fence
    #[command(flatten)]
    pub limits: Limits,
}

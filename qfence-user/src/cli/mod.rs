//! The command line.
pub mod resolve;

mod logs;
mod metrics;
mod policy;
mod probe;
mod top;
mod verifier;

use std::{ffi::OsString, net::IpAddr, path::PathBuf};

use clap::{ArgAction, ArgGroup, Args, Parser, Subcommand};
pub use logs::Logs;
pub use metrics::Metrics;
pub use policy::{DefaultAction, PolicyArgs, RuleFlags};
pub use probe::Probes;
pub use top::Top;
pub use verifier::{Actor, Verifier};

use crate::{
    fence::{
        integrity::{OnDamage, Parts},
        limits::Limits,
    },
    kernel::DenyWith,
    observe::metrics::address::Address,
    policy::Dns,
    record::target::{Format, LogTarget},
};

const EXAMPLES: &str = "\
Examples:
  A guest that has the internet and cannot reach this host:
    sudo qfence-user exec -- qemu-system-x86_64 -enable-kvm -m 1024 -hda disk.qcow2

  The same with a name, ssh into the guest, and refusals as JSON in a file:
    sudo qfence-user exec --name vm1 --log /var/log/vm1.json --log-format json -- \\
        qemu-system-x86_64 -m 1024 -hda disk.qcow2 -nic user,hostfwd=tcp::2222-:22

  Look around in a fence, as another user:
    sudo qfence-user exec --user nobody -- bash

  What is fenced, what is tried there, and an end to it:
    sudo qfence-user ps
    sudo qfence-user top
    sudo qfence-user logs vm1 -f
    sudo qfence-user rm vm1

  Whether this host can fence, and whether a fence holds on it:
    sudo qfence-user doctor
    sudo qfence-user verify";

const EXEC_EXAMPLES: &str = "\
Examples:
  sudo qfence-user exec -- qemu-system-x86_64 -enable-kvm -m 1024 -hda disk.qcow2
  sudo qfence-user exec --name ci --memory-max 4G --pids-max 500 -- ./run-job.sh
  sudo qfence-user exec --allow tcp:127.0.0.1:5432 -- qemu-system-x86_64 -m 1024 -hda disk.qcow2
  sudo qfence-user exec --profile internet-only --deny any:25 -- ./agent
  sudo qfence-user exec --profile locked --allow dns --allow tcp:192.0.2.7:443 -- ./fetch
  sudo qfence-user exec --dns deny --deny-with unreachable --log none -- curl http://localhost
  sudo qfence-user exec --keep -- qemu-system-x86_64 -daemonize -display none -hda disk.qcow2

A RULE is [PROTOCOL:]DESTINATION[:PORTS]; the first that matches decides:
  PROTOCOL     tcp, udp, icmp, sctp, dccp, udplite, gre, esp, …, proto-N; any if there is none
  DESTINATION  an address, a prefix (10.0.0.0/8, [fd00::/8]), or a set:
                 host        this host, on every address that its kernel calls local
                 loopback    127.0.0.0/8, ::1, and what else always leads to the machine itself
                 dns         the nameservers in resolv.conf, on port 53 if none is given
                 lan         RFC 1918, shared (CGNAT), unique local and site-local addresses
                 link-local  169.254.0.0/16, fe80::/10
                 metadata    the metadata services of clouds, such as 169.254.169.254
                 multicast   224.0.0.0/4, ff00::/8, 255.255.255.255
                 internet    what is none of host, loopback, lan, link-local, metadata, multicast
                 any         everything
  PORTS        80,443,8000-8080; all if there are none
An IPv6 address stands in brackets beside a protocol or ports: udp:[fd00::1]:53.

Ctrl-Z stops the command and qfence with it. Until they go on, another process (`qfence-user stand-in`) follows
this host's addresses and nameservers, and looks for damage; if it cannot be started, the command goes on at once.
`kill -STOP` of qfence by root stops the following.

Exit status:
  that of the command, or 128 and the number of the signal that ended it, or the start
  125  qfence failed, or ended the command (--on-damage kill); nothing runs, or what runs was killed and does not
       end, and stays fenced
  126  the command cannot be executed
  127  the command was not found

Of each kind of attempts (process, protocol, destination, port, rule, hook) the first is a line of the
log at once; more of the kind are one line a second. What would be more than 95 lines a second is one line
that says how much. The counts of all lines add up to the attempts.

Fields of a JSON log line, null where there is no telling:
  v             1; another number if a field goes or changes its meaning
  time          RFC 3339, UTC; of more of a kind, that of the last
  fence         the name of the fence
  seq           the number of the line in the fence's record
  kind          attempt, repeats, folded, lost, or dropped
  count         how many attempts the line tells of
  total         how many this and all lines before it tell of
Of attempts and repeats:
  verdict       denied, or would-deny with --monitor
  layer         call, packet, socket or device
  hook          connect4, connect6, sendmsg4, sendmsg6, egress, ingress, sock_create,
                setsockopt, device
  protocol      tcp, udp, …, or a number
  destination   the address
  port          the destination port; 0 for protocols without
  socket        in place of these two, for a socket that may not be made or broadcast: its type
  device        in place of all three, for a device that may not be opened: its path
  source        the address that it came from
  source_port   the port that it came from
  dialled       the address that a guest dialled, if the command is its QEMU, and it made another
  rule          the rule that decided, such as \"deny host\"
  comment       that of the rule in its profile
  pid           the process, in the initial pid namespace; at egress the one that made the socket
  tid           its thread
  uid           its user
  command       the name of the thread, control and invisible characters as \\xNN; its own word
  executable    the path of its executable; its own word where it may have a user namespace
                repeats name the source, tid, uid, command and cgroup of the first of their kind; tid, uid
                and command are null or empty once the pid is another's or executes another program
  cgroup        the id of its cgroup, or of the socket's
  cgroup_path   the path of its cgroup
  netns         the inode of its network namespace
  netns_cookie  the cookie of the socket's network namespace
Of folded:
  lines         how many lines it stands for
Without a rule are refused, and named so: deny-raw, deny-broadcast, deny-device, deny-foreign-netns,
deny-unfollowed-broadcast, deny-unowned, unparsed.
Lost are attempts that there was no room to record, dropped those that this log was too slow
for, or that could not be written to it.";

const VERIFY_NOTES: &str = "\
How far an attempt came, without the fence and with it:
  reached      it got an answer
  arrived      a packet of it was seen on the private host
  nothing      nothing of it was seen
  unsupported  this kernel has no such way
  not allowed  an unprivileged user may not

Verdicts:
  stopped   gets through without the fence, and the fence has it on record as refused; or, where the
            layer is seccomp, which records nothing, that alone stops it as well
  works     must work, and does
  untried   unsupported or not allowed, without the fence already
  PASSED    got through the fence
  BROKEN    must work, and does not
  UNPROVEN  did not get through, and nothing shows that this was the fence's doing

Fields of the JSON object:
  holds      whether all verdicts are good
  kernel     the release
  attempts   to reach the host
  must_work  in spite of the fence
Fields of each attempt, and of each thing that must work:
  attempt  as in the table
  without  reached, arrived, nothing, unsupported or unprivileged
  with     the same with the fence
  layers   the hooks that refused it; or seccomp, the filter of system calls
  errno    the error with the fence, or null
  ms       milliseconds with the fence
  verdict  stopped, works, untried, passed, broken or unproven

The probes are a program of their own, `qfence-verify`, which is installed beside `qfence-user`; this command
executes it.

Exit status:
  0    every attempt was stopped, and all that must work does
  1    not so
  125  verify itself failed: nothing is shown
  130  it was interrupted";

const DOCTOR_NOTES: &str = "\
States:
  ok        as it should be
  degraded  fences hold; something beside them does not work, or could not be found out
  missing   `exec` will not start

Fields of a JSON object:
  name   what was looked at
  state  ok, degraded or missing
  found  what there is
  fix    what to do, or null

Exit status:
  0    nothing is missing
  1    something is
  125  doctor itself failed";

/// Run a command, a QEMU guest above all, so that it cannot reach this host by any of its
/// addresses. The internet, DNS and hostfwd keep working.
#[derive(Debug, Parser)]
#[command(name = "qfence-user", version, after_help = EXAMPLES, max_term_width = 100)]
pub struct Cli {
    /// What to do
    #[command(subcommand)]
    pub verb: Verb,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Run a command in a fence of its own
    Exec(Exec),
    /// List the fences
    Ps(Ps),
    /// End what runs in a fence, and remove it
    Rm(Rm),
    /// Show what was tried in a fence
    Logs(Logs),
    /// Watch fences in the terminal
    Top(Top),
    /// Say what fences have counted, for Prometheus
    Metrics(Metrics),
    /// Change the policy of a fence that runs
    Set(Set),
    /// Say what happens to a destination, and why
    Explain(Explain),
    /// Look at policies: check profiles, show that of a fence, make one of what it saw
    Policy(PolicyVerb),
    /// Say whether this host can fence, and what to do where it cannot
    Doctor(Doctor),
    /// Show that a fence holds on this kernel, by every attempt to get around it
    Verify(Verify),
    /// Follow this host's addresses and nameservers for a fence whose supervisor is stopped
    #[command(hide = true)]
    StandIn(StandIn),
    /// List connections and end them for another process of qfence, which may leave this one behind
    #[command(hide = true)]
    SockDiag,
    /// Read the state of processes for another process of qfence, which may leave this one behind
    #[command(hide = true)]
    StatReader {
        /// Where /proc is mounted
        proc: PathBuf,
    },
}

/// `qfence-user exec`.
#[derive(Debug, Args)]
#[command(
    after_help = EXEC_EXAMPLES,
    args_override_self = true,
    override_usage = "qfence-user exec [OPTIONS] -- COMMAND [ARGS]..."
)]
pub struct Exec {
    /// Name of the fence [default: made from the command and something unique]
    #[arg(long)]
    pub name: Option<String>,

    /// User to run the command as [default: who called sudo]
    ///
    /// A group that is given is the only one, for root too. Without it the user has all of theirs, so
    /// that /dev/kvm works.
    #[arg(long, value_name = "NAME|UID[:GROUP]")]
    pub user: Option<String>,

    /// Which destinations may be reached
    #[command(flatten)]
    pub policy: PolicyArgs,

    /// Refuse nothing: let through and log what would be refused
    #[arg(long)]
    pub monitor: bool,

    /// Whether the profile's exception for nameservers in resolv.conf, on port 53, is in force
    #[arg(long, value_enum, default_value_t = Dns::Auto)]
    pub dns: Dns,

    /// What a refused call fails with
    #[arg(long, value_enum, default_value_t = DenyWith::Refused)]
    pub deny_with: DenyWith,

    /// Where refusals are logged beside the fence's own record; more than one can be given
    ///
    /// A file is appended to, and opened anew when this process gets SIGUSR1; it may be a device or a FIFO that
    /// somebody reads. A symbolic link is followed if it and its directory are root's, for the command may
    /// run as who called sudo. `syslog` is the daemon at /dev/log, by RFC 5424. Text or JSON can be chosen for each:
    /// text:PATH, json:PATH, json:stderr.
    #[arg(
        long,
        value_name = "PATH|stderr|journald|syslog[:SOCKET]|none",
        default_value = "stderr"
    )]
    pub log: Vec<LogTarget>,

    /// How refusals are logged in files and on standard error that do not say
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub log_format: Format,

    /// Serve what the fence has counted, as OpenMetrics, at /metrics
    ///
    /// As long as the command runs. See `qfence-user metrics` for all fences at once.
    #[arg(long, value_name = "ADDRESS:PORT|unix:PATH")]
    pub metrics: Option<Address>,

    /// Leave processes that outlive the command alone; they stay fenced
    #[arg(long)]
    pub keep: bool,

    /// What is done when a link, a pin, the policy or the cgroup of the fence is gone, or the command has
    /// left it
    ///
    /// Only root can do that to a fence. It is looked for once a second, as long as this process is there.
    #[arg(long, value_enum, default_value_t = OnDamage::Report)]
    pub on_damage: OnDamage,

    /// Let the command make raw, UDP-Lite and L2TP sockets
    ///
    /// What they send is judged all the same, but for IPv4 multicast and broadcast by those who may
    /// make raw sockets, root above all: the kernel hands the host a copy before it is judged. With an
    /// IP header of the sender's own making that copy can be for any UDP service of the host's.
    #[arg(long)]
    pub allow_raw: bool,

    /// Let the command make sockets in network namespaces that were made outside the fence
    ///
    /// A process can join the namespace of a container of its own user (`nsenter -U -n`), whose network, pasta or
    /// slirp4netns, runs outside the fence and leads to this host. Without this option a socket there is refused;
    /// namespaces that are made in the fence are not affected. With it the command can also trace and signal other
    /// processes of its user.
    #[arg(long)]
    pub allow_foreign_netns: bool,

    /// First show that a fence holds on this kernel, by the short form of `verify`; if it does not,
    /// nothing is started
    #[arg(long)]
    pub verify: bool,

    /// Let programs in the fence gain privileges, as set-user-ID programs do
    #[arg(long)]
    pub allow_new_privs: bool,

    /// Let programs of 32 bits, and of x32, set all options of their sockets
    ///
    /// The kernel asks the fence's programs about options that 64-bit calls set, and about no others. So
    /// a filter of system calls (seccomp) refuses those that matter to calls of 32 bits, all that are set
    /// by socketcall(2), and x32 and io_uring to such calls. With this option pings to the broadcast
    /// addresses of this host's networks, and the reports that the kernel sends for those who join
    /// multicast groups, reach this host.
    #[arg(long)]
    pub allow_compat_sockopt: bool,

    /// Close ways out that few programs need, beside those that are closed anyway
    ///
    /// Refuses request_key(2), add_key(2) and keyctl(2) altogether. Without it request_key(2) is refused
    /// if it has call-out information, with which the kernel has a program of root's ask for the key,
    /// outside of the fence.
    #[arg(long)]
    pub strict: bool,

    /// Let a QEMU have networks that the fence does not see, such as tap
    ///
    /// A QEMU whose arguments give its guest one is refused otherwise: tap, bridge, macvtap, vhost,
    /// vsock, Unix sockets, descriptors from elsewhere. A script that starts QEMU is not looked
    /// into, nor is what a QEMU is told by its monitor; but without this option nothing in the
    /// fence can open /dev/net/tun, /dev/vhost-net or /dev/vhost-vsock.
    #[arg(long)]
    pub allow_unfenced_net: bool,

    /// Pass on N descriptors after the first three; all others are closed
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub preserve_fds: u16,

    /// Show the steps of start-up; twice: also what each eBPF program decides
    #[arg(short, long, action = ArgAction::Count)]
    pub verbose: u8,

    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,

    /// Resource limits of the fence
    #[command(flatten)]
    pub limits: Limits,
}

/// `qfence-user ps`.
#[derive(Debug, Args)]
pub struct Ps {
    /// One JSON array instead of a table
    #[arg(long)]
    pub json: bool,
}

/// `qfence-user rm`.
#[derive(Debug, Args)]
pub struct Rm {
    /// Names of the fences
    #[arg(required = true, value_name = "NAME")]
    pub names: Vec<String>,

    /// Seconds between SIGTERM and SIGKILL
    #[arg(long, short, value_name = "SECONDS", default_value_t = 2)]
    pub time: u32,
}

/// The options of `set` of which one must be there.
const CHANGES: [&str; 8] = [
    "allow", "deny", "default", "profile", "dns", "monitor", "enforce", "reload",
];

const SET_EXAMPLES: &str = "\
Examples:
  sudo qfence-user set vm1 --allow tcp:127.0.0.1:5432
  sudo qfence-user set vm1 --profile internet-only
  sudo qfence-user set vm1 --monitor
  sudo qfence-user set vm1 --enforce --reload

Rules are those of `exec`; see `qfence-user exec --help`.

Exit status:
  0    the policy is in force, and no connection stands that it denies
  125  nothing is changed; or, if it says so, connections could not be ended";

/// `qfence-user set`.
///
/// The change is in force, whole, when this returns, for a fence without its supervisor as well; if it
/// cannot be made nothing is changed. Rules given now go before those given earlier. A profile is as it
/// was when the fence was started or this was called; --reload reads it anew.
#[derive(Debug, Args)]
#[command(after_help = SET_EXAMPLES, override_usage = "qfence-user set NAME [OPTIONS]", group = ArgGroup::new("change").args(CHANGES).required(true).multiple(true))]
pub struct Set {
    /// The name of the fence
    #[arg(value_name = "NAME")]
    pub name: String,

    /// Which destinations may be reached from now on
    #[command(flatten)]
    pub policy: PolicyArgs,

    /// Whether the profile's exception for nameservers is in force
    #[arg(long, value_enum)]
    pub dns: Option<Dns>,

    /// Refuse nothing any more: let through and log what would be refused
    #[arg(long, conflicts_with = "enforce")]
    pub monitor: bool,

    /// Refuse again
    #[arg(long)]
    pub enforce: bool,

    /// Read the profile anew from where it came from
    #[arg(long, conflicts_with = "profile")]
    pub reload: bool,

    /// Leave established connections alone that the new policy denies
    #[arg(long)]
    pub keep_established: bool,
}

const EXPLAIN_NOTES: &str = "\
Examples:
  qfence-user explain tcp:10.0.2.2:22 192.168.1.1
  qfence-user explain --profile locked --allow dns udp:1.1.1.1:53
  sudo qfence-user explain vm1 tcp:127.0.0.1:5432 '[fd00::1]:443'

Layers:
  address   calls, and packets that leave through a device: the address says
  loopback  packets that leave through the loopback device: all of them go to the host
  both      the two say the same

Fields of each JSON object:
  destination       as it was asked about
  address           its address
  by_address        the cases of the layer address
  through_loopback  the cases of the layer loopback
  hint              what else there is to know, or null
Fields of each case:
  which    protocols and ports; empty if it is all that was asked about
  verdict  allow, deny, or monitored: let through, and logged as what would be refused
  rule     the rule that decides
  source   where it was given, or null
  comment  that of its profile, or null
  set      the set or prefix by which it matches, or null
  member   the member of the set that has the address, or null";

/// `qfence-user explain`.
///
/// With the name of a fence it reads what the kernel judges by, and needs root; otherwise it tells what
/// `exec` with these options would make of this host as it is now.
#[derive(Debug, Args)]
#[command(
    after_help = EXPLAIN_NOTES,
    override_usage = "qfence-user explain [OPTIONS] [NAME] [PROTOCOL:]ADDRESS[:PORT]..."
)]
pub struct Explain {
    /// A fence, then destinations; or destinations alone
    #[arg(required = true, value_name = "NAME|DESTINATION")]
    pub words: Vec<String>,

    /// The fence, where its name could be taken for a destination
    #[arg(long, value_name = "NAME", conflicts_with_all = ["allow", "deny", "default", "profile", "dns"])]
    pub fence: Option<String>,

    /// The policy to ask
    #[command(flatten)]
    pub policy: PolicyArgs,

    /// Whether the profile's exception for nameservers is in force
    #[arg(long, value_enum)]
    pub dns: Option<Dns>,

    /// One JSON array instead of a table
    #[arg(long)]
    pub json: bool,
}

/// `qfence-user policy`.
#[derive(Debug, Args)]
pub struct PolicyVerb {
    /// What to do
    #[command(subcommand)]
    pub verb: PolicyVerbs,
}

/// The verbs of `qfence-user policy`.
#[derive(Debug, Subcommand)]
pub enum PolicyVerbs {
    /// Say whether profiles are sound
    ///
    /// Errors come with file, line and column; rules that can never match are warned of. Exit status 1
    /// if one is not sound.
    Check {
        /// Profiles, by name or path
        #[arg(required = true, value_name = "NAME|PATH")]
        profiles: Vec<OsString>,
    },
    /// Show the rules of a fence in their order, how often each has decided, and the members of its sets
    Show {
        /// The fence
        #[arg(value_name = "NAME")]
        name: String,
        /// One JSON object instead of tables
        #[arg(long)]
        json: bool,
    },
    /// Make a profile, to be reviewed, that allows what the fence was seen to need in monitor mode
    Suggest {
        /// The fence
        #[arg(value_name = "NAME")]
        name: String,
    },
}

/// `qfence-user doctor`.
///
/// Every check is made as far as it can be: the programs are loaded, and attached to a cgroup that is
/// removed again. Nothing is changed. Without root the checks that need it are missing.
#[derive(Debug, Args)]
#[command(after_help = DOCTOR_NOTES)]
pub struct Doctor {
    /// One JSON array instead of a table
    #[arg(long)]
    pub json: bool,
}

/// `qfence-user verify`.
///
/// Makes a throw-away fence in a private network, and tries to reach the host from inside it, as an
/// unprivileged user, in every way that Linux has; each way outside of the fence as well, where it
/// must get through. Then tries what must work. No packet leaves the private network, and nothing is
/// left behind.
#[derive(Debug, Args)]
#[command(after_help = VERIFY_NOTES)]
pub struct Verify {
    /// One JSON object instead of tables
    #[arg(long)]
    pub json: bool,

    /// One attempt for each layer, and some of what must work, as `exec --verify` does
    #[arg(long)]
    pub short: bool,
}

/// The hidden verb `stand-in`.
#[derive(Debug, Args)]
pub struct StandIn {
    /// The name of the fence
    pub name: String,

    /// The process id of the command
    #[arg(long)]
    pub command: i32,

    /// What to do when the fence is not whole any more
    #[arg(long)]
    pub on_damage: OnDamage,

    /// What the fence is made of
    #[arg(long)]
    pub parts: Parts,
}

/// `qfence-verify call`.
#[derive(Debug, Subcommand)]
pub enum SystemCall {
    /// Have the kernel ask for a key
    RequestKey,
    /// Join a multicast group
    JoinGroup {
        /// The group
        group: IpAddr,
    },
    /// Move to namespaces of one's own, and stay there
    MakeNamespace,
    /// Move to the namespaces of a process, and make a socket
    JoinNamespace {
        /// The process
        pid: i32,
    },
}

/// `qfence-verify open`.
#[derive(Debug, Args)]
pub struct OpenDevice {
    /// The device
    pub path: PathBuf,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn what_follows_the_command_is_the_commands() {
        let cli = Cli::try_parse_from(["qfence-user", "exec", "--keep", "ls", "-l", "--name", "x"]);
        let Verb::Exec(exec) = cli.unwrap().verb else {
            panic!("not exec")
        };
        assert_eq!(exec.command, ["ls", "-l", "--name", "x"]);
        assert_eq!(exec.name, None);
    }
}

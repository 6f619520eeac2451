//! The command line.
pub mod resolve;

mod attach;
mod doctor;
mod exec;
mod explain;
mod internal;
mod libvirt;
mod logs;
mod metrics;
mod nri;
mod oci;
mod policy;
mod policy_verbs;
mod probe;
mod set;
mod top;
mod verifier;
mod verify;

use std::path::PathBuf;

pub use attach::{Again, Attach, OnExit, TargetArgs};
use clap::{Args, Parser, Subcommand};
pub use doctor::Doctor;
pub use exec::{Closure, Exec, NewTap, YesNo};
pub use explain::Explain;
pub use internal::{OpenDevice, StandIn, SystemCall, Timer};
pub use libvirt::LibvirtHook;
pub use logs::Logs;
pub use metrics::Metrics;
pub use nri::NriPlugin;
pub use oci::{OciHook, OciRuntime, Stage};
pub use policy::{DefaultAction, PolicyArgs, RuleFlags};
pub use policy_verbs::{PolicyVerb, PolicyVerbs};
pub use probe::Probes;
pub use set::Set;
pub use top::Top;
pub use verifier::{Actor, Verifier};
pub use verify::Verify;

const EXAMPLES: &str = "\
Examples:
  Run a guest that can reach the internet, but not this host:
    sudo qfence-user exec -- qemu-system-x86_64 -enable-kvm -m 1024 -hda disk.qcow2

  The same with a name, ssh into the guest, and refusals logged as JSON to a file:
    sudo qfence-user exec --name vm1 --log /var/log/vm1.json --log-format json -- \\
        qemu-system-x86_64 -m 1024 -hda disk.qcow2 -nic user,hostfwd=tcp::2222-:22

  Run a shell in a fence, as another user:
    sudo qfence-user exec --user nobody -- bash

  List fences, watch their attempts, and end one:
    sudo qfence-user ps
    sudo qfence-user top
    sudo qfence-user logs vm1 -f
    sudo qfence-user rm vm1

  Check that this host can fence, and that a fence works on it:
    sudo qfence-user doctor
    sudo qfence-user verify";

/// Run a command, usually a QEMU guest, so that it cannot reach this host by any of its addresses. The
/// internet, DNS and hostfwd keep working.
#[derive(Debug, Parser)]
#[command(name = "qfence-user", version, after_help = EXAMPLES, max_term_width = 100)]
pub struct Cli {
    /// The verb
    #[command(subcommand)]
    pub verb: Verb,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Run a command in a new fence
    Exec(Box<Exec>),
    /// Fence what runs already, or what others start
    ///
    /// The fence is attached to the cgroup that the target is in. qfence supervises it until that cgroup is
    /// removed, or until a signal such as Ctrl-C ends qfence, which by default detaches the fence (--on-exit).
    Attach(Box<Attach>),
    /// List the fences
    Ps(Ps),
    /// End all processes in a fence, and remove it; a fence of `attach` is only detached
    Rm(Rm),
    /// Show the record of a fence
    Logs(Logs),
    /// Watch fences in the terminal
    ///
    /// The table shows all fences, with their attempts and traffic per second and their totals. For the
    /// selected fence, top also shows the most frequent attempts, the latest refusals, and the rules that
    /// refused. `?` shows the keys.
    Top(Top),
    /// Export the counters of all fences to Prometheus
    ///
    /// The output is OpenMetrics text: attempts and their outcomes, verdicts by rule and by protocol,
    /// traffic, policies. A process in a fence cannot influence any label.
    Metrics(Metrics),
    /// Change the policy of a running fence
    ///
    /// The complete change is in force when this command returns, even if the fence has no supervisor. If
    /// the change fails, nothing is changed. New rules are placed before earlier ones. The profile is not
    /// read again, except with --reload.
    Set(Set),
    /// Show whether a destination is allowed, and which rule decides
    ///
    /// With the name of a fence, explain reads the policy that is in force in the kernel, which needs root.
    /// Without one, it computes the policy that `exec` with the same options would use on this host now.
    Explain(Explain),
    /// Check profiles, show a fence's policy, or draft a profile from monitor mode
    Policy(PolicyVerb),
    /// Check whether this host can fence, and show how to repair problems
    ///
    /// The programs are loaded, and attached to a temporary cgroup, which is removed again. Nothing else is
    /// changed. Without root, the checks that need it are reported as missing.
    Doctor(Doctor),
    /// Prove that a fence works on this kernel, by every known method to bypass it
    ///
    /// Verify makes a temporary fence in a private network. An unprivileged user in the fence then tries to
    /// reach the host by every method that qfence knows. Each probe is also made outside the fence, where it
    /// must succeed. Finally, verify tries what must work in a fence. No packet leaves the private network,
    /// and nothing is left behind.
    Verify(Verify),
    /// Fence a container before it starts, called by its runtime as a hook
    OciHook(OciHook),
    /// Add the hook of `oci-hook` to a container, then execute its runtime: for Docker
    OciRuntime(OciRuntime),
    /// Fence pods by their annotations: a plugin of containerd's and CRI-O's
    NriPlugin(NriPlugin),
    /// Fence a guest that libvirt starts, from its first instruction; a hook of libvirt's
    LibvirtHook(LibvirtHook),
    /// Follow this host's addresses and nameservers for a fence whose supervisor is stopped
    #[command(hide = true)]
    StandIn(StandIn),
    /// End everything in a fence when its supervisor has ended
    #[command(hide = true)]
    DeadMan {
        /// The name of the fence
        name: String,
    },
    /// Take back rules of a fence whose time is over
    #[command(hide = true)]
    Timer(Timer),
    /// List and end connections for another process of qfence, which may end before this one
    #[command(hide = true)]
    SockDiag,
    /// Read the state of processes for another process of qfence, which may end before this one
    #[command(hide = true)]
    StatReader {
        /// Where /proc is mounted
        proc: PathBuf,
    },
}

/// `qfence-user ps`.
#[derive(Debug, Args)]
pub struct Ps {
    /// Print one JSON array instead of a table
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

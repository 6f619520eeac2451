//! The command line of `qfence-verify probe`.

use std::path::PathBuf;

use clap::Args;

use crate::probe::Probe;

const HELP: &str = "\
Methods:
  tcp mptcp sctp dccp, each plain or with
    -fastopen -fastopen-connect -reconnected -uring
  udp udplite l2tp ping raw-icmp raw-udp raw-tcp raw-253 raw-header, each plain or with
    -connected -sendmmsg -gso -cork -more -large -zerocopy -splice -elsewhere -reconnected
    -uring -uring-connected
  l2tp, ping, raw-icmp and raw-253 have no port; -elsewhere and -reconnected need +decoy=ADDRESS.

Options:
  +dev=NAME +unicast-if=NAME +multicast-if=NAME +pktinfo=NAME   which device to use
  +src=ADDRESS +port=NUMBER +reuse +freebind +transparent       what to bind to
  +lsrr=ADDRESS +srh=ADDRESS +rh2=ADDRESS                       where to go first
  +on-v6 +unspec                                                odd sockets and addresses
  +pause    say so before the first byte is sent, and wait for a line on standard input

Each probe gives one JSON line:
  attempt  as it was given
  ending   reached, sent (and no answer), timeout, failed, unsupported, unprivileged
  step     socket, setsockopt, bind, ring, connect, send, receive: where it ended, unless reached
  errno    the error, by name
  reply    what was answered
  ms       milliseconds";

/// The options of `qfence-verify probe`, which `verify` and the tests run inside and outside of the fence.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub struct Probes {
    /// How long each step may take, in milliseconds
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    pub timeout_ms: u32,

    /// Make all sockets first, then use them as somebody else
    #[arg(long = "as", value_name = "NAME|UID[:GROUP]")]
    pub r#as: Option<String>,

    /// Make the sockets in this network namespace
    #[arg(long, value_name = "PATH")]
    pub netns: Option<PathBuf>,

    /// What to try: METHOD/ADDRESS[%DEVICE][/PORT][+OPTION…]
    #[arg(required = true, value_name = "SPEC")]
    pub probes: Vec<Probe>,
}

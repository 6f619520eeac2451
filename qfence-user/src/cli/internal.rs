//! The command lines of processes that qfence starts itself: hidden verbs, and the actors of `qfence-verify`.

use std::{net::IpAddr, path::PathBuf};

use clap::{Args, Subcommand};

use crate::fence::integrity::{OnDamage, Parts};

/// The hidden verb `stand-in`.
#[derive(Debug, Args)]
pub struct StandIn {
    /// The name of the fence
    pub name: String,

    /// The process id of the command
    #[arg(long)]
    pub command: i32,

    /// What to do if the fence is damaged
    #[arg(long)]
    pub on_damage: OnDamage,

    /// The parts of the fence
    #[arg(long)]
    pub parts: Parts,

    /// resolv.conf
    #[arg(long)]
    pub resolv_conf: PathBuf,
}

/// The hidden verb `timer`.
#[derive(Debug, Args)]
pub struct Timer {
    /// The name of the fence
    pub name: String,

    /// The time of the rules, in nanoseconds since boot
    #[arg(long)]
    pub until: u64,
}

/// `qfence-verify call`.
#[derive(Debug, Subcommand)]
pub enum SystemCall {
    /// Make the kernel request a key
    RequestKey,
    /// Join a multicast group
    JoinGroup {
        /// The group
        group: IpAddr,
    },
    /// Move to new namespaces, and stay there
    MakeNamespace,
    /// Move to a network namespace that is new, and talk by its loopback
    OwnLoopback {
        /// Move to another one from there first
        #[arg(long)]
        nested: bool,
    },
    /// Listen on a port of an address, and talk there
    OwnListener {
        /// The address
        address: IpAddr,
    },
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

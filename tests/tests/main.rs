//! All end-to-end tests, as one program: to link seventy takes longer than to run them.
//!
//! Each test is a process of its own all the same (cargo-nextest), so that it may change its namespaces and its limits.

mod activation;
mod apart;
mod atomic;
mod attach;
mod audit;
mod background;
mod bad_input;
mod callers;
mod closures;
mod counters;
mod damage;
mod dead_man;
mod descriptors;
mod devices;
mod directories;
mod doctor;
mod domain;
mod elsewhere;
mod engines;
mod established;
mod exit_status;
mod failing_log;
mod files;
mod for_a_while;
mod groups;
mod guest;
mod guest_packets;
mod guest_services;
mod harness;
mod heavy;
mod hints;
mod host_file;
mod hostile;
mod identity;
mod interrupted;
mod job_control;
mod kept;
mod keyring;
mod large;
mod layers;
mod leaving;
mod leftovers;
mod limits;
mod log;
mod log_allowed;
mod log_fifo;
mod managers;
mod many;
mod many_peers;
mod many_routes;
mod matrix;
mod metrics;
mod monitored;
mod named_netns;
mod names;
mod nat64;
mod nested;
mod netns;
mod objects;
mod orphan;
mod outlived;
mod own;
mod own_netns;
mod pair;
mod parity;
mod passt;
mod peers;
mod policy_guest;
mod policy_verbs;
mod proof;
mod pure_v2;
mod redirected;
mod refused_syns;
mod registries;
mod registry;
mod removal;
mod replies;
mod resolv;
mod rotation;
mod schema;
mod set;
mod siblings;
mod side_doors;
mod spellings;
mod start_signals;
mod stopped;
mod stopped_damage;
mod strict;
mod stuck;
mod stuck_start;
mod system_calls;
mod taking_back;
mod tap;
mod taps;
mod time_namespace;
mod top;
mod traced;
mod units;
mod unkept;
mod unnamed;
mod unreadable;
mod unspecified;
mod upgrade;
mod verify;
mod versions;
mod waiting;

use std::{collections::BTreeSet, fs, path::Path};

use anyhow::{Context as _, Result};

/// A file that is not declared here is not compiled, and its tests never run.
#[test]
fn each_file_is_a_module() -> Result<()> {
    let declared: BTreeSet<_> = include_str!("main.rs")
        .lines()
        .filter_map(|line| line.strip_prefix("mod ")?.strip_suffix(';'))
        .map(str::to_owned)
        .collect();
    let mut files = BTreeSet::new();
    for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests"))? {
        let name = entry?.file_name();
        let name = name.to_str().context("a file name that is not UTF-8")?;
        files.insert(name.strip_suffix(".rs").unwrap_or(name).to_owned());
    }
    files.remove("main");
    assert_eq!(declared, files);
    Ok(())
}

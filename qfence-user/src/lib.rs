//! The library of qfence. It compiles a policy to a decision tree in an eBPF map, attaches programs to a cgroup that
//! judge by this tree, and runs a command in that cgroup.
//!
//! The modules below are called rooms, and are listed from the lowest up. A room uses only rooms above it in this
//! table. `tests/rooms.rs` checks that.
//!
//! | room | its job |
//! |---|---|
//! | [`base`] | files, locks, processes, names, messages: all that does not depend on policies |
//! | [`policy`] | rules, their grammar, profiles, and sets of addresses |
//! | [`compile`] | compiles a policy and the members of its sets to a tree; explains the decisions of a tree |
//! | [`confinement`] | what `--strict` closes for a command, and what the command keeps |
//! | [`host`] | the facts of this host that sets depend on, addresses and nameservers, and the watcher that follows them |
//! | [`resolver`] | the DNS server of a fence with rules by name, and its upstream |
//! | [`kernel`] | eBPF: loads, attaches, pins and queries programs and maps, publishes policies |
//! | [`qemu`] | finds the guest's networks in the arguments of a QEMU, and what the QEMU needs under `--strict` |
//! | [`stored_policy`] | the policy of a fence, in a file of /run/qfence |
//! | [`record`] | attempts, from the kernel to the record and the logs |
//! | [`fence`] | fences: their registry, places, limits and integrity |
//! | [`workload`] | workloads that others start: finds their cgroups, tells which are shared, reads OCI bundles, answers container runtimes |
//! | [`launch`] | starts a command in a fence, and receives the signals for it |
//! | [`observe`] | counters, for monitoring systems and in a terminal |
//! | [`supervise`] | the supervisor's work while the command runs, and changes of a policy |
//! | [`build`] | makes a fence: maps, policy, programs, links |
//! | [`doctor`] | checks whether this host can fence |
//! | [`probe`] | probes: tries to reach a destination by every method |
//! | [`cli`] | the command line |
//! | [`verify`] | proves that a fence works on this host |
//! | [`commands`] | the verbs, one file each |
//!
//! There are two programs: `qfence-user`, and `qfence-verify` ([`commands::verifier`]). Only the latter contains
//! [`probe`] and the scenes of [`verify`].

pub mod base;
pub mod build;
pub mod cli;
pub mod commands;
pub mod compile;
pub mod confinement;
pub mod doctor;
pub mod fence;
pub mod host;
pub mod kernel;
pub mod launch;
pub mod observe;
pub mod policy;
pub mod probe;
pub mod qemu;
pub mod record;
pub mod resolver;
pub mod stored_policy;
pub mod supervise;
pub mod verify;
pub mod workload;

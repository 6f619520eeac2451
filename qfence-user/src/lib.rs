//! qfence, the user side: a policy becomes a tree in a map, programs on a cgroup judge by it, and a command runs inside.
//!
//! The rooms, from the lowest up. A room uses those above it in this table, and none below it; `tests/rooms.rs` sees to
//! that.
//!
//! | room | its job |
//! |---|---|
//! | [`base`] | files, locks, processes, names, messages: what has nothing to do with policies |
//! | [`policy`] | rules, their grammar, profiles, and the sets of addresses they name |
//! | [`compile`] | a policy and the members of its sets become a tree; why that decides as it does |
//! | [`host`] | the facts of this host that sets are made of, and what follows them: addresses, nameservers |
//! | [`kernel`] | eBPF: loads, attaches, pins and queries programs and maps, publishes policies |
//! | [`qemu`] | what the arguments of a QEMU say of its guest's networks |
//! | [`stored_policy`] | the policy of a fence, in a file of /run/qfence |
//! | [`record`] | attempts on their way from the kernel to logs |
//! | [`fence`] | fences: their registry, their places, their limits, whether they are whole |
//! | [`launch`] | starts a command inside of a fence, and passes signals on |
//! | [`observe`] | counters, for monitoring systems and in a terminal |
//! | [`supervise`] | what a supervisor does while the command runs, and how a policy is changed |
//! | [`build`] | makes a fence: maps, policy, programs, links |
//! | [`doctor`] | whether this host can fence |
//! | [`probe`] | probes: tries to reach a destination by every method there is |
//! | [`cli`] | the command line |
//! | [`verify`] | whether a fence holds on this host |
//! | [`commands`] | a file a verb |
//!
//! Two programs are made of them: `qfence-user`, and `qfence-verify` ([`commands::verifier`]), which alone has [`probe`] and
//! the scenes of [`verify`] in it.

pub mod base;
pub mod build;
pub mod cli;
pub mod commands;
pub mod compile;
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
pub mod stored_policy;
pub mod supervise;
pub mod verify;

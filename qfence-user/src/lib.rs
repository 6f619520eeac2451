//! qfence, the user side: a policy becomes entries in a map, nine programs on a cgroup judge by
//! them, and a command runs inside.
//!
//! The modules in the order in which `exec` comes to them:
//!
//! | module | its one job |
//! |---|---|
//! | [`cli`] | the command line |
//! | [`commands`] | one file a verb: `exec`, `ps`, `rm`, `doctor`, `attempt`, `verify` |
//! | [`paths`] | where on the host qfence works |
//! | [`identity`] | the user a command runs as |
//! | [`inherited`] | the descriptors qfence was started with |
//! | [`nested`] | the fence qfence was started in, if it was |
//! | [`qemu`], [`programs`] | networks of a QEMU that the fence does not see; the files it names |
//! | [`mounts`] | the mount table |
//! | [`hierarchy`], [`cgroup`], [`cgroup_id`] | own cgroups; finds one by its id |
//! | [`locks`], [`interruptible`] | locks on directories; waits that a signal ends |
//! | [`process`] | what /proc says of a process that does not end |
//! | [`limits`] | resource limits of a cgroup |
//! | [`name`] | names of fences |
//! | [`fences`] | all fences: create, list, sweep, remove |
//! | [`fence`] | one of them, supervised |
//! | [`files`] | files that root writes and reads, so that nobody else decides which |
//! | [`pins`], [`state`] | its links in bpffs, its description under /run |
//! | [`policy`] | rules and the sets they name |
//! | [`hostset`], [`nameservers`] | the members of the sets `host` and `dns` |
//! | [`netlink`], [`resolv`] | follow the kernel's addresses, and resolv.conf |
//! | [`choose`], [`store`] | the policy that options ask for; the one a fence has, in a file |
//! | [`compile`] | rules and sets to map entries |
//! | [`kernel`] | owns aya: load, publish, attach, pin |
//! | [`proof`] | that a fence holds a socket that is made in it |
//! | [`child`] | starts the command |
//! | [`dispositions`] | signals that the caller ignores |
//! | [`signals`], [`job`] | what reaches the supervisor; the terminal's job control |
//! | [`stand_in`] | follows the host while the supervisor is stopped |
//! | [`follow`] | the policy in force, true to the host |
//! | [`change`] | changes it while it is in force, from another process |
//! | [`established`] | ends connections that it denies |
//! | [`integrity`] | whether the fence is still whole |
//! | [`supervise`] | runs until the command ends |
//! | [`audit`], [`what`] | what was tried: out of the kernel, onto record, to wherever people look |
//! | [`snapshot`], [`metrics`], [`top`] | what a fence has counted; for monitoring systems; in a terminal |
//! | [`traces`], [`say`], [`aside`], `trouble` | what the programs say; qfence's own words; those that are said once |
//! | [`readable`] | waits for descriptors |
//! | [`explain`], [`suggest`] | why a destination is refused; a profile out of what was seen |
//! | [`attempt`] | attempts to reach a destination in every way there is |
//! | [`exit`] | exit statuses |
//! | [`doctor`] | whether this host can fence |
//! | [`verify`] | whether a fence holds on it |

pub mod aside;
pub mod attempt;
pub mod audit;
pub mod begin;
pub mod cgroup;
pub mod cgroup_id;
pub mod change;
pub mod child;
pub mod choose;
pub mod cli;
pub mod commands;
pub mod compile;
pub mod dispositions;
pub mod doctor;
pub mod established;
pub mod exit;
pub mod explain;
pub mod fence;
pub mod fences;
pub mod files;
pub mod follow;
pub mod hierarchy;
pub mod hostset;
pub mod identity;
pub mod inherited;
pub mod integrity;
pub mod interruptible;
pub mod job;
pub mod kernel;
pub mod limits;
mod lines;
pub mod locks;
pub mod metrics;
pub mod mounts;
pub mod name;
pub mod nameservers;
pub mod nested;
pub mod netlink;
pub mod outlast;
pub mod paths;
pub mod pins;
pub mod policy;
pub mod printable;
pub mod process;
pub mod programs;
pub mod proof;
pub mod qemu;
pub mod readable;
pub mod resolv;
pub mod say;
pub mod signals;
pub mod snapshot;
pub mod stand_in;
pub mod state;
pub mod store;
pub mod suggest;
pub mod supervise;
pub mod top;
pub mod traces;
mod trouble;
pub mod verify;
pub mod what;

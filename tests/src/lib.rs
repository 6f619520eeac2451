//! The harness of the end-to-end suite: a private host and internet for each test, services that record each arrival,
//! and guests that make attempts.
//!
//! | file | contents |
//! |---|---|
//! | [`world`] | the private host and internet of `verify`, and more devices |
//! | [`namespace`] | one network namespace, kept by a file descriptor, and functions to run code in it |
//! | [`mounts`] | a host with other mounts |
//! | [`apart`] | a separate machine for a test, as far as qfence can see |
//! | [`cgroup`] | a cgroup whose processes end with it |
//! | [`systemd`] | a machine with systemd as process 1, on the files of this one |
//! | [`engines`] | a host with podman and Docker, on the files of this machine |
//! | [`private`] | a host with other cgroups, pins and descriptions |
//! | [`listener`] | TCP, UDP and HTTP services that record every arrival: those of `verify` |
//! | [`dns`] | a real resolver that logs its queries |
//! | [`nameserver`] | nameservers whose answers a test chooses |
//! | [`capture`] | a packet capture on all devices of a namespace |
//! | [`echoes`] | the number of pings that reached a namespace |
//! | [`probe`] | the executable that makes attempts, and its typed results |
//! | [`tap`] | a host of guests with tap devices, and guests that write frames |
//! | [`guest`] | machines under QEMU: a Linux that the test controls, and QEMU's own iPXE |
//! | [`fence`] | the fence under test: the executable, names, its log of refusals |
//! | [`fuse`] | a file whose readers are blocked in the kernel |
//! | [`hostile`] | a program that gives false information about itself |
//! | [`process`] | a child process that does not outlive its test |
//! | [`run`] | a command run to its end |
//! | [`shell`] | a shell in a fence that the test controls |
//! | [`terminal`] | a terminal with a shell |
//! | [`job`] | a fenced command as a job of that shell |
//! | [`screen`] | the contents of a terminal with full-screen programs |
//! | [`memory`] | the memory use of a process |
//! | [`remains`] | the parts of a fence: cgroup, pins, description |
//! | [`debian`] | Debian packages that are used without being installed |
//! | [`seccomp`] | commands for which a system call does not exist |
//! | [`bench`] | common parts of benchmarks |
//! | [`exit`] | the exit status of a program's result |
//! | [`progress`] | progress messages on standard error |
//! | [`reachable`] | copies of files that the unprivileged user can access |
//! | [`workspace`] | paths, and files that are built once |

pub mod apart;
pub mod bench;
pub mod capture;
pub mod cgroup;
pub mod debian;
pub mod dns;
pub mod echoes;
pub mod engines;
pub mod exit;
pub mod fence;
pub mod fuse;
pub mod guest;
pub mod hostile;
pub mod job;
pub mod memory;
pub mod mounts;
pub mod nameserver;
pub mod namespace;
pub mod private;
pub mod probe;
pub mod process;
pub mod progress;
pub mod reachable;
pub mod remains;
pub mod run;
pub mod screen;
pub mod seccomp;
pub mod shell;
pub mod systemd;
pub mod tap;
pub mod terminal;
pub mod workspace;
pub mod world;

pub use qfence_user::verify::listeners as listener;

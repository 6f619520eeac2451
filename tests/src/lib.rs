//! The harness of the end-to-end suite: a host and an internet of the test's own, services that
//! log who reached them, and guests that try to.
//!
//! | file | what it gives |
//! |---|---|
//! | [`world`] | the private host and internet of `verify`, and more devices |
//! | [`namespace`] | one network namespace, held by a file descriptor, and ways to run things in it |
//! | [`mounts`] | a host with other mounts |
//! | [`apart`] | a machine of a test's own as far as qfence is concerned |
//! | [`private`] | a host with other cgroups, pins and descriptions |
//! | [`listener`] | TCP, UDP and HTTP services that record every arrival: those of `verify` |
//! | [`dns`] | a real resolver that logs its queries |
//! | [`capture`] | a packet capture on all devices of a namespace |
//! | [`echoes`] | how many pings reached a namespace |
//! | [`probe`] | the program that makes attempts, and its typed results |
//! | [`guest`] | machines under QEMU: a Linux to be driven by the test, and QEMU's own iPXE |
//! | [`fence`] | the fence under test: the binary, names, its log of refusals |
//! | [`fuse`] | a file whose readers are stuck in the kernel |
//! | [`hostile`] | a program that lies about itself |
//! | [`process`] | a child process that does not outlive its test |
//! | [`run`] | a command run to its end |
//! | [`shell`] | a shell in a fence that the test talks to |
//! | [`terminal`] | a terminal with a shell at it |
//! | [`job`] | a fenced command as a job of that shell |
//! | [`screen`] | what somebody at a terminal that can be drawn on sees |
//! | [`memory`] | what a process holds of memory |
//! | [`remains`] | what there is of a fence: cgroup, pins, description |
//! | [`debian`] | Debian packages that are used without being installed |
//! | [`seccomp`] | system calls that there are not |
//! | [`bench`] | what benchmarks have in common |
//! | [`progress`] | what a program of this package is doing, on standard error |
//! | [`reachable`] | copies of files that the unprivileged user reaches |
//! | [`workspace`] | paths, and files that are built once |

pub mod apart;
pub mod bench;
pub mod capture;
pub mod debian;
pub mod dns;
pub mod echoes;
pub mod fence;
pub mod fuse;
pub mod guest;
pub mod hostile;
pub mod job;
pub mod memory;
pub mod mounts;
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
pub mod terminal;
pub mod workspace;
pub mod world;

pub use qfence_user::verify::listeners as listener;

//! What was tried, and by whom: out of the kernel, onto record, and to wherever people look for it.
//!
//! | module | its one job |
//! |---|---|
//! | [`proc`] | what /proc says of a process |
//! | `stats` | asks for the state of processes where nobody has to wait for it |
//! | [`guest`] | which process is the QEMU of the command, and which flows are its guest's |
//! | [`process`] | all that is known of a process |
//! | [`line`] | a line of the record, as JSON and as text |
//! | [`budget`] | how much is written in a second |
//! | [`reader`] | events and counts to lines |
//! | [`files`] | the lines of a fence under /run, bounded |
//! | [`stamp`] | a kept line, with the version of who wrote it |
//! | [`tail`] | reads them from where they were read last |
//! | [`filter`] | which of them somebody asks for |
//! | [`target`] | where else lines go, as `--log` says |
//! | [`sink`] | writes lines there: a file, the journal, syslog |
//! | [`writer`] | a thread and a queue for each of them |
//! | [`auditor`] | the thread that does all this while the command runs |
pub mod operation;

pub mod auditor;
pub mod budget;
pub mod files;
pub mod filter;
pub mod guest;
pub mod line;
pub mod proc;
pub mod process;
pub mod reader;
pub mod rule_names;
pub mod sink;
pub mod stamp;
mod stats;
pub mod tail;
pub mod target;
pub mod writer;

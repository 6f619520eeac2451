//! Attempts, from the kernel to the record and to the sinks.
//!
//! | module | its one job |
//! |---|---|
//! | [`proc`] | reads /proc of a process |
//! | `stats` | reads the state of processes in a helper process, which may block |
//! | [`guest`] | which process is the QEMU of the command, and which flows are its guest's |
//! | [`process`] | all that is known of a process |
//! | [`line`] | a record line, as JSON and as text |
//! | [`operation`] | the operation of an attempt: its destination, socket or device |
//! | [`budget`] | how much is written per second |
//! | [`devices`] | the names of a fence's network devices |
//! | [`lookups`] | look-ups of names, on their way from the resolver |
//! | [`resolved_names`] | the names behind addresses |
//! | [`workloads`] | the workload of an attempt, where a fence has several |
//! | [`rule_names`] | the names of a fence's rules |
//! | [`reader`] | turns events and counts into lines |
//! | [`files`] | the bounded record of a fence under /run |
//! | [`error`] | the errors of reading and writing a record |
//! | [`stamp`] | a stored line, with the version of its writer |
//! | [`tail`] | reads the lines that are new since the last read |
//! | [`filter`] | selects lines |
//! | [`target`] | the values of `--log` |
//! | [`port_hints`] | hints for local ports that are refused |
//! | [`rotation`] | how large a log file may become |
//! | [`sink`] | writes lines to a file, the journal or syslog |
//! | [`writer`] | a thread and a queue for each sink |
//! | [`auditor`] | the thread that does all this while the command runs |
pub mod operation;

pub mod auditor;
pub mod budget;
pub mod devices;
pub mod error;
pub mod files;
pub mod filter;
pub mod guest;
pub mod line;
pub mod lookups;
pub mod port_hints;
pub mod proc;
pub mod process;
pub mod reader;
pub mod resolved_names;
pub mod rotation;
pub mod rule_names;
pub mod sink;
pub mod stamp;
mod stats;
pub mod tail;
pub mod target;
pub mod workloads;
pub mod writer;

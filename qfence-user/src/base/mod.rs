//! Files, locks, processes, names and messages: nothing about policies.

pub mod beat;
pub mod cgroup_id;
pub mod clock;
pub mod console;
pub mod ending;
pub mod exit;
pub mod files;
pub mod identity;
pub mod inherited;
pub mod interruptible;
pub mod lines;
pub mod locks;
pub mod mac;
pub mod memory;
pub mod message_queue;
pub mod mounts;
pub mod name;
pub mod notify_directory;
pub mod paths;
pub mod printable;
pub mod process;
pub mod random;
pub mod readable;
pub mod release;
pub mod system_log;
pub mod version;

//! What `--strict` closes for a command, and what the command keeps. Pure: nothing here looks at the host.
//!
//! | module | its one job |
//! |---|---|
//! | [`closure`] | the closures, and a list of them on the command line |
//! | [`grants`] | what a command keeps under its closures |
//! | [`managers`] | the names of managers, and of their abstract sockets |
//! | [`names`] | the rules for names of Unix sockets |
//! | [`devices`] | the devices that a command keeps |
//! | [`enforced`] | the closures that eBPF programs enforce |
//! | [`removal`] | directories in which a command can remove other files |
//! | [`unix_name`] | the name of a Unix socket |
pub mod closure;
pub mod devices;
pub mod enforced;
pub mod grants;
pub mod managers;
pub mod names;
pub mod removal;
pub mod unix_name;

pub use closure::{Closure, Strict};
pub use devices::Devices;
pub use enforced::Enforced;
pub use grants::{Grants, Listener};
pub use names::{AbstractNames, ManagerPath, NameRules};
pub use removal::{Removal, removals};
pub use unix_name::UnixName;

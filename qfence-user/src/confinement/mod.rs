//! What `--strict` closes for a command, and what the command keeps. Pure: nothing here looks at the host.
//!
//! | module | its one job |
//! |---|---|
//! | [`closure`] | the closures, and a list of them on the command line |
//! | [`grants`] | what a command keeps under its closures |
//! | [`removal`] | directories in which a command can remove other files |
//! | [`unix_name`] | the name of a Unix socket |
pub mod closure;
pub mod grants;
pub mod removal;
pub mod unix_name;

pub use closure::{Closure, Strict};
pub use grants::{Grants, Listener};
pub use removal::{Removal, removals};
pub use unix_name::UnixName;

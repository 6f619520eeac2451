//! The command runs as who it should, and otherwise as if there were no qfence.

mod callers;
mod capabilities;
mod user;

const ROOT_WARNING: &str = "qfence: warning: the command runs as root, and root can leave its \
     fence; give --user, or call with sudo\n";

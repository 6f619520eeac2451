//! The command runs as the right user. Everything else is as without qfence.

mod callers;
mod capabilities;
mod user;

const ROOT_WARNING: &str = "qfence: warning: the command runs as root, and root can leave its \
     fence; give --user, or call with sudo\n";

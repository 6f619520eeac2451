//! The `qfence-user` command. Its code is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    qfence_user::commands::run()
}

//! The `qfence-verify` command: all of it is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    qfence_user::commands::verifier::run()
}

//! `verify`: executes `qfence-verify`, which proves that a fence works on this kernel.

use std::{convert::Infallible, ffi::CString, iter, os::unix::ffi::OsStrExt as _};

use anyhow::{Context as _, Result};
use nix::unistd::execv;

use super::require_root;
use crate::{cli::Verify, verify::program};

/// Executes `qfence-verify` in place of this program, with the same process, user, options, standard streams and exit
/// status.
///
/// # Errors
/// If it cannot be executed.
pub fn run(options: &Verify) -> Result<Infallible> {
    require_root()?;
    let mut command = program::command()?;
    for (is_given, option) in [
        (options.json, "--json"),
        (options.short, "--short"),
        (options.closures, "--closures"),
        (options.devices, "--devices"),
    ] {
        if is_given {
            command.arg(option);
        }
    }
    let words = iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<_> = words
        .map(|word| CString::new(word.as_bytes()))
        .collect::<Result<_, _>>()?;
    // execv is called directly: the standard library would have a shell run a file that is not an executable
    // (execvp(3)).
    execv(&words[0], &words)
        .with_context(|| format!("cannot execute {}", command.get_program().display()))
}

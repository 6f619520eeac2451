//! Progress messages of a program, on standard error.

use std::{
    io::{Write as _, stderr},
    time::Instant,
};

use anyhow::{Context as _, Result};

/// Prints a line.
pub fn note(text: &str) {
    // If standard error cannot be written to, nothing reads the message.
    let _ = writeln!(stderr(), "    {text}");
}

/// Runs a long task. Prints a message before it, and its duration after it.
///
/// # Errors
/// If `work` fails.
pub fn during<T>(what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let start = Instant::now();
    note(&format!("{what} ..."));
    let made = work().with_context(|| what.to_owned())?;
    note(&format!(
        "{what}: done in {:.1} s",
        start.elapsed().as_secs_f32()
    ));
    Ok(made)
}

//! What a program is doing, as lines on standard error.

use std::{
    io::{Write as _, stderr},
    time::Instant,
};

use anyhow::{Context as _, Result};

/// Prints a line.
pub fn note(text: &str) {
    // Without standard error nobody reads it.
    let _ = writeln!(stderr(), "    {text}");
}

/// Does something that takes long; prints it before, and the time it took after.
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

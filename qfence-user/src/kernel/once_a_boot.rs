//! Facts about this kernel that take long to find, cached in a file for this boot.

use std::{fs, path::Path};

use anyhow::Result;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::base::files::{
    PRIVATE_FILE, bounded,
    directory::{Directory, Others},
    staged::Staged,
};

/// More bytes than a file has.
const LONGEST: u64 = 4096;

/// Unique for each boot (random(4)). Another boot can have another kernel.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// The content of a file.
#[derive(Debug, Serialize, Deserialize)]
struct Kept<T> {
    boot: String,
    fact: T,
}

/// The id of this boot, if the kernel shows it.
pub(super) fn boot() -> Option<String> {
    let boot = fs::read_to_string(BOOT_ID).ok()?;
    Some(boot.trim_end().to_owned())
}

/// Reads a fact from a file in `run`, if it is of this boot and complete.
pub(super) fn read<T: DeserializeOwned>(run: &Path, file: &str, boot: &str) -> Option<T> {
    // Only root may have written it.
    let directory = Directory::trusted(run, Others::Read).ok()??;
    let bytes = bounded::read(&directory.path_by_descriptor(file.as_ref()), LONGEST).ok()?;
    let kept: Kept<T> = serde_json::from_slice(&bytes).ok()?;
    (kept.boot == boot).then_some(kept.fact)
}

/// Writes a fact to a file in `run`.
///
/// # Errors
/// If the directory is not root's alone, or the file cannot be written.
pub(super) fn keep<T: Serialize>(run: &Path, file: &str, boot: String, fact: T) -> Result<()> {
    let directory = Directory::make_private(run)?;
    let bytes = serde_json::to_vec(&Kept { boot, fact })?;
    Staged::write(directory, file.as_ref(), &bytes, PRIVATE_FILE)?.keep()?;
    Ok(())
}

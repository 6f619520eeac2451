//! The second table of `verify`: ways out of a fence that are no packets. A process tries to reach other processes,
//! sockets, files, devices and memory of the same user, without a fence, in a fence, and in one with `--strict`.
//!
//! | file | its one job |
//! |---|---|
//! | [`promise`] | what a fence may promise about an attempt, and by what |
//! | [`table`] | the attempts, and the promises about each |
//! | [`attempts`] | makes them, each in a process of its own |
//! | [`victims`] | the process, sockets, files and memory that are attempted to reach |
//! | [`stage`] | the mounts and the network in which all this exists |
//! | [`columns`] | makes all attempts in one kind of fence: the program itself runs `exec` |
//! | [`judge`] | the verdict on an attempt |
//! | [`report`] | the rows of the table |

pub mod attempts;
pub mod columns;
pub mod judge;
pub mod promise;
pub mod report;
pub mod stage;
pub mod table;
pub mod victims;

use std::{fs, io, path::PathBuf};

use anyhow::{Context as _, Result};

use crate::{base::paths::Paths, kernel::OFFSETS_FILE};
use attempts::raw;
use columns::{Column, Tries};
use judge::Facts;
use report::{Closures, Row};

/// The user of the victims and of the attempts: `nobody`, by number, because not every system has an entry for it.
const USER: u32 = 65534;

/// Makes every attempt without a fence, in a fence, and in a fence with `--strict`.
///
/// # Errors
/// If one cannot be made; then nothing is shown. No fence is left in any case.
pub fn run(paths: &Paths) -> Result<Closures> {
    raw::heed_children()?;
    let facts = Facts::read()?;
    let cache = Cache::find(paths);
    let without = columns::run(Column::Without, paths)?.expected()?;
    let default = columns::run(Column::Default, paths)?.expected()?;
    let (strict, strict_error) = match columns::run(Column::Strict, paths)? {
        Tries::Made(strict) => (Some(strict), None),
        Tries::NotStarted(error) => (None, Some(error)),
    };
    cache.leave_as_it_was()?;
    let rows = table::ATTEMPTS.iter().enumerate().map(|(index, attempt)| {
        let strict = strict.as_ref().map(|strict| strict[index]);
        Row::new(attempt, &facts, without[index], default[index], strict)
    });
    Ok(Closures {
        rows: rows.collect(),
        strict_error,
    })
}

/// The file that `exec` leaves for the next one. Verification leaves nothing.
struct Cache {
    file: PathBuf,
    was_there: bool,
}

impl Cache {
    fn find(paths: &Paths) -> Self {
        let file = paths.run.join(OFFSETS_FILE);
        Self {
            was_there: file.exists(),
            file,
        }
    }

    fn leave_as_it_was(&self) -> Result<()> {
        if self.was_there {
            return Ok(());
        }
        match fs::remove_file(&self.file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("cannot remove {}", self.file.display()))
            }
            _ => Ok(()),
        }
    }
}

//! A file, which is appended to.

use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use super::{Sink, formatted};
use crate::{
    audit::{record::Line, target::Format},
    files::log::{Trusted, open_to_append},
    say::say,
};

pub(super) struct File {
    path: PathBuf,
    file: fs::File,
    format: Format,
    trusted: Trusted,
}

impl File {
    pub(super) fn open(path: &Path, format: Format) -> Result<Self> {
        // Where this process is may not be where it is when the file is opened again.
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let trusted = Trusted::from_env();
        let waits = || {
            say(format_args!(
                "waiting for somebody to read from the log {}",
                path.display()
            ));
        };
        let file = open_to_append(&path, &trusted, waits)
            .with_context(|| format!("cannot open the log {}", path.display()))?;
        Ok(Self {
            path,
            file,
            format,
            trusted,
        })
    }
}

impl Sink for File {
    fn write(&mut self, line: &Line) -> io::Result<()> {
        // In one call, so that fences that share a file do not mix their lines.
        self.file
            .write_all(format!("{}\n", formatted(line, self.format)?).as_bytes())
    }

    fn reopen(&mut self) -> io::Result<()> {
        self.file = open_to_append(&self.path, &self.trusted, || {})?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use qfence_common::{Hook, address::from_v4};

    use super::*;
    use crate::audit::record::tests::line;

    #[test]
    fn a_file_that_was_moved_away_is_begun_anew() {
        let dir = tempfile::tempdir().unwrap();
        let (path, moved) = (dir.path().join("log"), dir.path().join("log.1"));
        let line = line(Hook::Connect4, from_v4([127, 0, 0, 1]), 6, 22, 1);
        let mut file = File::open(&path, Format::Text).unwrap();
        file.write(&line).unwrap();
        fs::rename(&path, &moved).unwrap();
        file.write(&line).unwrap();
        file.reopen().unwrap();
        file.write(&line).unwrap();
        assert_eq!(
            fs::read_to_string(moved).unwrap(),
            format!("{line}\n{line}\n")
        );
        assert_eq!(fs::read_to_string(path).unwrap(), format!("{line}\n"));
    }
}

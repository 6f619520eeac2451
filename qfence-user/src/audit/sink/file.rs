//! A file, which is appended to.

use std::{
    fs,
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use nix::{
    errno::Errno,
    fcntl::{FcntlArg, OFlag, fcntl},
};

use super::{Sink, formatted};
use crate::{
    audit::{record::Line, target::Format},
    say::say,
};

pub(super) struct File {
    path: PathBuf,
    file: fs::File,
    format: Format,
}

impl File {
    pub(super) fn open(path: &Path, format: Format) -> Result<Self> {
        // Where this process is may not be where it is when the file is opened again.
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let opened = append(&path, OFlag::O_NONBLOCK).and_then(|file| {
            // Writing waits for whoever reads: the sink has a thread of its own.
            fcntl(&file, FcntlArg::F_SETFL(OFlag::O_APPEND))?;
            Ok(file)
        });
        let opened = match opened {
            // A FIFO that nobody reads from (fifo(7)).
            Err(error) if error.raw_os_error() == Some(Errno::ENXIO as i32) => {
                say(format_args!(
                    "waiting for somebody to read from the log {}",
                    path.display()
                ));
                append(&path, OFlag::empty())
            }
            opened => opened,
        };
        let file = opened.with_context(|| format!("cannot open the log {}", path.display()))?;
        Ok(Self { path, file, format })
    }
}

impl Sink for File {
    fn write(&mut self, line: &Line) -> io::Result<()> {
        // In one call, so that fences that share a file do not mix their lines.
        self.file
            .write_all(format!("{}\n", formatted(line, self.format)?).as_bytes())
    }

    fn reopen(&mut self) -> io::Result<()> {
        self.file = append(&self.path, OFlag::empty())?;
        Ok(())
    }
}

fn append(path: &Path, flags: OFlag) -> io::Result<fs::File> {
    fs::OpenOptions::new()
        .create(true)
        .append(true)
        .custom_flags(flags.bits())
        .open(path)
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

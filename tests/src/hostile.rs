//! A program that lies about itself: what it does is said by a variable, `tests/src/bin/hostile` has the words.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use crate::workspace;

/// The variable that says what it is to do.
const WORDS: &str = "HOSTILE";

/// A copy of the program under another name, which every user may execute.
#[derive(Debug)]
pub struct Hostile {
    dir: tempfile::TempDir,
    program: PathBuf,
}

impl Hostile {
    /// Copies it: `built` is `env!("CARGO_BIN_EXE_hostile")`, which only a test knows.
    pub fn named(name: &str, built: &str) -> Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix("qfence-hostile-")
            .tempdir()?;
        workspace::make_readable(dir.path())?;
        let program = dir.path().join(name);
        fs::copy(built, &program).with_context(|| format!("copy {built}"))?;
        workspace::make_readable(&program)?;
        Ok(Self { dir, program })
    }

    /// Its path.
    #[must_use]
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// Where it is.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.dir.path()
    }

    /// A line for a shell to have it do these things.
    #[must_use]
    pub fn line(&self, words: &str) -> String {
        format!("{WORDS}='{words}' {}", self.program.display())
    }

    /// Has a command, or what it runs, do these things.
    pub fn tell<'a>(&self, command: &'a mut Command, words: &str) -> &'a mut Command {
        command.env(WORDS, words)
    }
}

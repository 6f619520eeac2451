//! A program that gives false information about itself. A variable lists its actions, which are defined in
//! `tests/src/bin/hostile`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use crate::workspace;

/// The variable that lists the actions.
const WORDS: &str = "HOSTILE";

/// A copy of the executable under another name, which every user may execute.
#[derive(Debug)]
pub struct Hostile {
    dir: tempfile::TempDir,
    program: PathBuf,
}

impl Hostile {
    /// Copies the executable. `built` is `env!("CARGO_BIN_EXE_hostile")`, which is only defined in tests.
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

    /// The path of the copy.
    #[must_use]
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// The directory of the copy.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.dir.path()
    }

    /// A shell command line that runs it with these actions.
    #[must_use]
    pub fn line(&self, words: &str) -> String {
        format!("{WORDS}='{words}' {}", self.program.display())
    }

    /// Sets the actions in the environment of a command.
    pub fn tell<'a>(&self, command: &'a mut Command, words: &str) -> &'a mut Command {
        command.env(WORDS, words)
    }
}

//! `attach --restart` on the host with engines.

use std::{fs::read_to_string, time::Duration};

use anyhow::{Context as _, Result, ensure};
use tempfile::NamedTempFile;
use tests::{
    process::Process,
    run::{HANG, wait_until},
};

use super::Scene;

/// Where its process id is.
const PID: &str = "/run/pid";

/// A qfence that fences a target each time that it is started anew. The fence has the name `f`.
pub(super) struct Followed<'a> {
    process: Process,
    errors: NamedTempFile,
    scene: &'a Scene,
}

impl<'a> Followed<'a> {
    /// Follows what `target` names, an option with its value.
    pub(super) fn start(scene: &'a Scene, target: &str) -> Result<Self> {
        let errors = NamedTempFile::new()?;
        let mut command = scene.room.command("sh")?;
        let options = "--name f --restart --log none";
        let script = format!("echo $$ > {PID}; exec qfence-user attach {target} {options}");
        command.args(["-c", &script]).stderr(errors.reopen()?);
        Ok(Self {
            process: Process::spawn(command)?,
            errors,
            scene,
        })
    }

    /// Waits until the target was fenced so often.
    pub(super) fn in_force(&mut self, times: usize) -> Result<()> {
        let errors = &self.errors;
        let process = &mut self.process;
        let said = || read_to_string(errors.path()).unwrap_or_default();
        let waited = wait_until("the fence is in force", || {
            let ended = process.wait(Duration::ZERO)?;
            ensure!(ended.is_none(), "it has ended: {ended:?}");
            Ok(said().matches("the fence f is in force").count() >= times)
        });
        waited.with_context(said)
    }

    /// Waits until the fence has ended with its target.
    pub(super) fn is_over(&self) -> Result<()> {
        wait_until("the fence has ended with the target", || {
            Ok(self.scene.fences()?.trim() == "[]")
        })
    }

    /// Kills qfence. The fence has no supervisor any more.
    pub(super) fn kill(mut self) -> Result<()> {
        let kill = format!("kill -KILL $(cat {PID})");
        self.scene.room.output(&["sh", "-c", &kill])?;
        let status = self.process.wait(HANG)?.context("it does not end")?;
        ensure!(!status.success(), "{status}");
        Ok(())
    }

    /// Ends qfence, as Ctrl-C does. The target is not fenced any more.
    pub(super) fn end(mut self) -> Result<()> {
        let kill = format!("kill $(cat {PID})");
        self.scene.room.output(&["sh", "-c", &kill])?;
        let status = self.process.wait(HANG)?.context("it does not end")?;
        ensure!(status.success(), "{status}");
        Ok(())
    }
}

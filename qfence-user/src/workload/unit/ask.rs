//! Asks systemd by its client, for a limited time.

use std::{
    io::Read as _,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use crate::base::printable::printable;

/// The directory that exists if systemd is process 1 (sd_booted(3)).
const RUNS: &str = "run/systemd/system";

/// Where systemctl is.
const COMMANDS: [&str; 3] = [
    "usr/bin/systemctl",
    "bin/systemctl",
    "run/current-system/sw/bin/systemctl",
];

/// How long systemd may take. Its own limit for an answer is 25 seconds.
const PATIENCE: Duration = Duration::from_secs(30);

/// The most bytes of an answer. It fits into a pipe, so systemctl does not wait for its reader.
const ANSWER: u64 = 64 * 1024;

/// Whether systemd is process 1.
pub(in crate::workload) fn runs(root: &Path) -> bool {
    root.join(RUNS).is_dir()
}

/// Runs systemctl, and returns what it writes.
///
/// # Errors
/// If systemd does not run here, systemctl is missing, fails, or does not answer.
pub(in crate::workload) fn systemctl(root: &Path, arguments: &[&str]) -> Result<String> {
    if !runs(root) {
        bail!("systemd does not run here: name the cgroup or a process instead (--cgroup, --pid)");
    }
    let commands = COMMANDS.map(|command| root.join(command));
    let command = commands.iter().find(|command| command.exists());
    let command = command.context("systemctl is not installed")?;
    let mut child = Command::new(command)
        .args(["--system", "--no-pager"])
        .args(arguments)
        .env_clear()
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {}", command.display()))?;
    let deadline = Instant::now() + PATIENCE;
    let status = loop {
        match child.try_wait()? {
            Some(status) => break status,
            None if Instant::now() < deadline => thread::sleep(Duration::from_millis(2)),
            None => {
                // It is no process of systemd's, so nothing is lost with it.
                child.kill()?;
                child.wait()?;
                bail!(
                    "systemctl did not answer within {} seconds",
                    PATIENCE.as_secs()
                );
            }
        }
    };
    let stdout = child.stdout.take().context("no pipe")?;
    let stderr = child.stderr.take().context("no pipe")?;
    let (mut answer, mut error) = (String::new(), Vec::new());
    if !status.success() {
        stderr.take(ANSWER).read_to_end(&mut error)?;
        bail!("systemctl failed: {}", printable(error.trim_ascii()));
    }
    stdout.take(ANSWER).read_to_string(&mut answer)?;
    Ok(answer)
}

//! A process of qfence's own that has a limited time.

use std::{
    fs::File,
    io::{Read as _, Seek as _},
    process::{Child, Command, ExitStatus, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::memfd::{MFdFlags, memfd_create};

/// The most bytes of messages that are read.
const MESSAGES: u64 = 1 << 16;

/// The time between looks at the process.
const PAUSE: Duration = Duration::from_millis(10);

/// How long a process that was killed is waited for. It can be within the kernel.
const KILLED: Duration = Duration::from_secs(1);

/// Runs a command without input and output to its end, and returns its messages, line by line.
///
/// # Errors
/// With the messages if it fails, and if it has not ended in time. Then it is killed.
pub(super) fn run(mut command: Command, limit: Duration) -> Result<Vec<String>> {
    // A pipe would stop a process that says much.
    let said = memfd_create("qfence-messages", MFdFlags::MFD_CLOEXEC);
    let mut said = File::from(said.context("cannot make a file for messages")?);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    command.stderr(said.try_clone()?);
    let child = command.spawn();
    let mut child = child.context("cannot execute qfence-user")?;
    let Some(status) = ended(&mut child, limit)? else {
        child.kill()?;
        ended(&mut child, KILLED)?;
        bail!(
            "qfence-user has not ended within {} seconds, and was killed",
            limit.as_secs_f32()
        );
    };
    said.rewind()?;
    let mut bytes = Vec::new();
    said.take(MESSAGES).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let lines = text.lines();
    let lines = lines.map(|line| line.strip_prefix("qfence: ").unwrap_or(line).to_owned());
    let lines: Vec<_> = lines.collect();
    ensure!(status.success(), "{}", lines.join("; "));
    Ok(lines)
}

/// The status of a process that ends within a time.
fn ended(child: &mut Child, limit: Duration) -> Result<Option<ExitStatus>> {
    let deadline = Instant::now() + limit;
    loop {
        let status = child.try_wait().context("cannot wait for qfence-user")?;
        if status.is_some() || Instant::now() >= deadline {
            return Ok(status);
        }
        sleep(PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(line: &str, limit: Duration) -> Result<Vec<String>> {
        let mut command = Command::new("sh");
        command.args(["-c", line]);
        run(command, limit)
    }

    #[test]
    fn a_process_has_a_limited_time() {
        let start = Instant::now();
        let killed = shell("echo x >&2; exec sleep 100", Duration::from_millis(200));
        let killed = killed.unwrap_err().to_string();
        assert_eq!(
            killed,
            "qfence-user has not ended within 0.2 seconds, and was killed"
        );
        assert!(start.elapsed() < Duration::from_secs(50));
    }

    #[test]
    fn what_it_says_is_read_however_much_it_is() {
        let limit = Duration::from_secs(60);
        let said = shell("echo qfence: a >&2; echo no; echo b >&2", limit);
        assert_eq!(said.unwrap(), ["a", "b"]);
        let failed = shell("echo a >&2; echo qfence: b >&2; exit 1", limit);
        assert_eq!(failed.unwrap_err().to_string(), "a; b");
        let much = shell("head -c 1000000 /dev/zero >&2", limit);
        assert_eq!(much.unwrap().concat().len(), 1 << 16);
    }
}

//! The machine: a QEMU process, and the output of its commands on the second serial line.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, ExitStatus, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use super::{clock, image::Image};
use crate::{arch::Arch, shell};

/// The prefix of the lines that the machine prints between the outputs of commands.
const MARKER: &str = "@qfence-vm ";
/// How many bytes of the console are shown on a failure.
const TAIL: usize = 4000;
const KERNEL_ARGUMENTS: &str = "root=/dev/vda rw quiet panic=-1 mitigations=off";

/// A running machine. Dropping it kills QEMU.
#[derive(Debug)]
pub(super) struct Machine {
    lines: Receiver<String>,
    console: PathBuf,
    qemu: Qemu,
}

/// The process of QEMU. Dropping it kills the process.
#[derive(Debug)]
struct Qemu(Child);

/// A line from the serial line.
#[derive(Debug, PartialEq, Eq)]
enum Said<'a> {
    /// Output of a command.
    Output(&'a str),
    /// The machine has booted.
    Ready,
    /// A command has ended with this status. The text before the marker is its last output, without an end of line.
    Ended(&'a str, u8),
}

impl Machine {
    /// Starts QEMU. Changes of the machine's disk are lost when it ends.
    ///
    /// With `has_guests`, the machine can run guests of its own by AMD's virtualization, which QEMU emulates: then their
    /// instructions are emulated once, not twice.
    pub(super) fn start(
        arch: Arch,
        image: &Image,
        payload: &Path,
        console: &Path,
        has_guests: bool,
    ) -> Result<Self> {
        let mut command = shell::program("setpriv");
        // QEMU ends with xtask, also if xtask is killed.
        command.args(["--pdeathsig=TERM", "--"]);
        command.arg(format!("qemu-system-{}", arch.name()));
        // Two processors, because eBPF programs on different processors share maps and rings.
        command.args("-accel tcg -smp 2 -m 1024 -nodefaults -no-user-config".split(' '));
        command.args(hardware(arch));
        if has_guests {
            command.args(["-cpu", "qemu64,+svm,+npt"]);
        }
        command.args("-display none -no-reboot -nic none".split(' '));
        command.arg("-kernel").arg(&image.kernel);
        command.arg("-initrd").arg(&image.initramfs);
        command.arg("-append");
        command.arg(format!("{KERNEL_ARGUMENTS} {}", kernel_arguments(arch)));
        let disks = [
            (image.disk.as_path(), "snapshot=on"),
            (payload, "readonly=on"),
        ];
        let modules = image.modules.as_deref().map(|file| (file, "readonly=on"));
        for (file, options) in disks.into_iter().chain(modules) {
            // QEMU's syntax doubles a comma in a path.
            let file = file.display().to_string().replace(',', ",,");
            command.arg("-drive");
            command.arg(format!("if=virtio,format=raw,{options},file={file}"));
        }
        command
            .arg("-serial")
            .arg(format!("file:{}", console.display()));
        command.args(["-chardev", "stdio,id=out,signal=off"]);
        command.args(output(arch));
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut qemu = Qemu(command.spawn().context("starting QEMU")?);
        let stdout = qemu.0.stdout.take();
        let stdout = stdout.context("QEMU has no standard output")?;
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            let lines = BufReader::new(stdout).split(b'\n').map_while(Result::ok);
            lines
                .map(|line| String::from_utf8_lossy(&line).into_owned())
                .try_for_each(|line| sender.send(line))
        });
        Ok(Self {
            lines,
            console: console.to_owned(),
            qemu,
        })
    }

    /// Waits until the machine is ready to run the first command.
    pub(super) fn await_ready(&self, limit: Duration) -> Result<()> {
        let deadline = Instant::now() + limit;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if read(&self.next_line(left)?) == Said::Ready {
                return Ok(());
            }
        }
    }

    /// Passes the output of the next command to `take`, line by line, and returns its exit status.
    pub(super) fn run_next(
        &self,
        silence: Duration,
        mut take: impl FnMut(&str) -> Result<()>,
    ) -> Result<u8> {
        loop {
            let line = self.next_line(silence)?;
            match read(&line) {
                Said::Output(text) => take(text)?,
                Said::Ready => {}
                Said::Ended(text, status) => {
                    if !text.is_empty() {
                        take(text)?;
                    }
                    return Ok(status);
                }
            }
        }
    }

    /// Waits until the machine has switched itself off, after the last command.
    pub(super) fn await_end(mut self, limit: Duration) -> Result<()> {
        match self.qemu.wait(limit)? {
            Some(status) if status.success() => Ok(()),
            Some(status) => bail!("QEMU failed ({status})"),
            None => bail!("the machine did not switch itself off within {limit:?}"),
        }
    }

    fn next_line(&self, limit: Duration) -> Result<String> {
        let trouble = match self.lines.recv_timeout(limit) {
            Ok(line) => return Ok(line),
            Err(RecvTimeoutError::Timeout) => format!("no output of the machine for {limit:?}"),
            Err(RecvTimeoutError::Disconnected) => "QEMU has ended".to_owned(),
        };
        let console = fs::read(&self.console).unwrap_or_default();
        let tail = String::from_utf8_lossy(&console[console.len().saturating_sub(TAIL)..]);
        bail!("{trouble}; the end of the machine's console:\n{tail}")
    }
}

impl Qemu {
    /// Waits until QEMU has ended; `None` if it still runs after `limit`.
    fn wait(&mut self, limit: Duration) -> Result<Option<ExitStatus>> {
        let deadline = Instant::now() + limit;
        loop {
            let status = self.0.try_wait().context("waiting for QEMU")?;
            if status.is_some() || Instant::now() >= deadline {
                return Ok(status);
            }
            thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        // A destructor cannot report errors. A process that has ended only needs to be reaped.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The machine that QEMU emulates, if it is not its usual one.
fn hardware(arch: Arch) -> &'static [&'static str] {
    match arch {
        Arch::X86_64 => &[],
        // QEMU's own algorithm for the authentication of pointers is quicker than that of the architecture.
        Arch::Aarch64 => &["-M", "virt", "-cpu", "max,pauth-impdef=on"],
    }
}

/// The arguments of the kernel that depend on the hardware.
fn kernel_arguments(arch: Arch) -> String {
    match arch {
        Arch::X86_64 => format!(
            "console=ttyS0 tsc=reliable no_timer_check{}",
            clock::argument()
        ),
        Arch::Aarch64 => "console=ttyAMA0".to_owned(),
    }
}

/// The serial line for the output of commands. The board for aarch64 has only one of its own.
fn output(arch: Arch) -> &'static [&'static str] {
    match arch {
        Arch::X86_64 => &["-serial", "chardev:out"],
        Arch::Aarch64 => &["-device", "pci-serial,chardev=out"],
    }
}

/// The name of that serial line in the machine.
pub(super) fn output_terminal(arch: Arch) -> &'static str {
    match arch {
        Arch::X86_64 => "/dev/ttyS1",
        Arch::Aarch64 => "/dev/ttyS0",
    }
}

fn read(line: &str) -> Said<'_> {
    let line = line.strip_suffix('\r').unwrap_or(line);
    let Some((before, marker)) = line.split_once(MARKER) else {
        return Said::Output(line);
    };
    if marker == "ready" {
        return Said::Ready;
    }
    let status = marker
        .strip_prefix("status ")
        .and_then(|status| status.parse().ok());
    status.map_or(Said::Output(line), |status| Said::Ended(before, status))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markers_are_told_from_output() {
        assert_eq!(read("hello\r"), Said::Output("hello"));
        assert_eq!(read(""), Said::Output(""));
        assert_eq!(read("@qfence-vm ready"), Said::Ready);
        assert_eq!(read("@qfence-vm status 0"), Said::Ended("", 0));
        assert_eq!(
            read("no end of line@qfence-vm status 125"),
            Said::Ended("no end of line", 125)
        );
        for odd in ["@qfence-vm status", "@qfence-vm status 300", "@qfence-vm"] {
            assert_eq!(read(odd), Said::Output(odd));
        }
    }
}

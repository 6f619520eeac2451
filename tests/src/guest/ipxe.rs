//! QEMU's own boot ROM, iPXE, as a guest. It needs no image. A script makes it fetch web pages and print the results.
//!
//! iPXE ignores ICMP. It receives a refusal of the host's kernel with `ECONNREFUSED` as a reset, immediately. After any
//! other error it retries until its time limit.
//! once; after any other error it goes on trying until its time is up.

use std::{ffi::OsStr, fmt::Write as _, fs, time::Duration};

use anyhow::{Context as _, Result, ensure};

use super::qemu::{Files, Qemu};
use crate::{workspace, world::World};

/// The time limit of a page, in milliseconds.
const PATIENCE_MS: u32 = 5000;
/// The time limit of the boot.
const BOOT: Duration = Duration::from_secs(120);

/// The result of fetching a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fetch {
    /// The page was received.
    Reached,
    /// The page was not received.
    Failed {
        /// iPXE's error number.
        code: u32,
        /// The message of iPXE.
        message: String,
    },
}

impl Fetch {
    /// Whether the page was received.
    #[must_use]
    pub fn is_reached(&self) -> bool {
        *self == Self::Reached
    }

    /// Whether the connection was refused: user networking reports that by a reset.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        self.is_error(0x0f)
    }

    /// Whether no answer came within the time limit.
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        self.is_error(0x4c)
    }

    /// The highest byte of an error number is the POSIX error; the rest identifies its origin.
    fn is_error(&self, number: u32) -> bool {
        matches!(self, Self::Failed { code, .. } if code >> 24 == number)
    }
}

/// Boots iPXE on the host of `world`, makes it fetch pages given as (label, URL), and returns each result. QEMU's
/// command is appended to that of `launcher`; an empty one means no fence.
pub fn attempt<S: AsRef<OsStr>>(
    launcher: &[S],
    world: &World,
    pages: &[(&str, &str)],
) -> Result<Vec<(String, Fetch)>> {
    let files = Files::new()?;
    let script = files.dir().join("probe.ipxe");
    fs::write(&script, write_script(pages)).context("write iPXE's script")?;
    workspace::make_readable(&script)?;
    let mut arguments: Vec<String> = ["-machine", "pc,graphics=off", "-m", "64", "-boot", "n"]
        .map(str::to_owned)
        .into();
    let netdev = format!(
        "user,id=n0,tftp={},bootfile=probe.ipxe",
        files.dir().display()
    );
    arguments.extend(["-netdev".to_owned(), netdev]);
    arguments.extend(["-device", "virtio-net-pci,netdev=n0"].map(str::to_owned));
    arguments.extend(["-chardev", "stdio,id=console,signal=off"].map(str::to_owned));
    arguments.extend(["-serial", "chardev:console"].map(str::to_owned));

    let qemu = Qemu::start(&world.host, launcher, files, &arguments)?;
    qemu.lines_until("@begin", BOOT).context("boot iPXE")?;
    let count = u32::try_from(pages.len())?;
    let limit = Duration::from_millis((2 * PATIENCE_MS * (count + 1)).into());
    let lines = qemu
        .lines_until("@end", limit)
        .context("wait for iPXE's script")?;
    let fetches = read_fetches(&lines)?;
    ensure!(
        fetches.len() == pages.len(),
        "iPXE did not try every page:\n{}",
        lines.join("\n")
    );
    let labels = pages.iter().map(|(label, _)| (*label).to_owned());
    Ok(labels.zip(fetches).collect())
}

fn write_script(pages: &[(&str, &str)]) -> String {
    // A line ends before the marker: the console wraps long ones.
    let mut script = "#!ipxe\necho\necho @begin\n".to_owned();
    for (_, url) in pages {
        // Writing to a String cannot fail.
        let _ = write!(
            script,
            "imgfetch --timeout {PATIENCE_MS} {url} \
             && echo @reached || echo @failed ${{errno:hexraw}}\nimgfree\n"
        );
    }
    // The end would cut off what is still on the line.
    script.push_str("echo @end\nsleep 5\nreboot\n");
    script
}

fn read_fetches(lines: &[String]) -> Result<Vec<Fetch>> {
    let mut fetches = Vec::new();
    let mut message = String::new();
    for line in lines {
        if line == "@reached" {
            fetches.push(Fetch::Reached);
        } else if let Some(code) = line.strip_prefix("@failed ") {
            let code = u32::from_str_radix(code, 16).with_context(|| format!("read {line}"))?;
            fetches.push(Fetch::Failed {
                code,
                message: message.trim().to_owned(),
            });
        } else {
            message.push_str(line);
            continue;
        }
        message.clear();
    }
    Ok(fetches)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ipxe_prints_becomes_fetches() {
        let lines = [
            "http://10.0.2.2/... ok",
            "@reached",
            "http://10.0.2.2:81/... Connection reset (http://ipxe.",
            "org/0f0a6039)",
            "@failed 0f0a6039",
        ];
        let fetches = read_fetches(&lines.map(str::to_owned)).unwrap();
        assert_eq!(fetches[0], Fetch::Reached);
        assert!(fetches[1].is_refused());
        let Fetch::Failed { message, .. } = &fetches[1] else {
            panic!("reached")
        };
        assert!(message.ends_with("(http://ipxe.org/0f0a6039)"));
    }
}

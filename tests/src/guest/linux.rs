//! A Linux guest that a test drives: `guest.probe(&["tcp/10.0.2.2/8080"])`.

use std::{ffi::OsStr, path::PathBuf, time::Duration};

use anyhow::{Context as _, Result, bail};

use super::{
    image,
    qemu::{Files, Qemu},
};
use crate::{
    namespace::Namespace,
    probe::{self, Flood, Load, ProbeResult},
    process::Process,
    reachable::reachable,
    world::World,
};

/// The guest's IPv4 address; the host is 10.0.2.2, the resolver 10.0.2.3.
pub const GUEST_V4: &str = "10.0.2.15";
/// The guest's IPv6 address; the host is `fec0::2`, the resolver `fec0::3`.
pub const GUEST_V6: &str = "fec0::15";

/// Beside the console: what makes a kernel under emulation boot a quarter faster.
const KERNEL_ARGUMENTS: &str =
    "console=ttyS0 quiet panic=-1 mitigations=off tsc=reliable no_timer_check nokaslr";

/// How long a guest may take to boot.
const BOOT: Duration = Duration::from_secs(120);
/// How long a command in the guest may take.
const COMMAND: Duration = Duration::from_secs(120);

/// What differs from guest to guest.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Ports forwarded to the guest, as QEMU writes them: `tcp:127.0.0.1:2222-:22`.
    pub hostfwd: Vec<String>,
    /// Another back end of the guest's network card instead of `user,…`, without its id.
    pub netdev: Option<String>,
    /// The MAC address of the guest's network card.
    pub mac: Option<String>,
    /// More arguments for QEMU.
    pub arguments: Vec<String>,
    /// More files for the guest: where each is to be, and where it is now.
    pub files: Vec<(String, PathBuf)>,
}

/// A running Linux guest. It ends when dropped.
#[derive(Debug)]
pub struct Guest {
    qemu: Qemu,
    commands: u32,
}

impl Guest {
    /// Boots a guest on the host of `world` and waits until its network is up. QEMU's command is
    /// appended to that of `launcher`; an empty one means no fence.
    pub fn boot<S: AsRef<OsStr>>(world: &World, launcher: &[S], options: &Options) -> Result<Self> {
        Self::boot_on(&world.host, launcher, options)
    }

    /// Like [`Self::boot`], on another host.
    pub fn boot_on<S: AsRef<OsStr>>(
        host: &Namespace,
        launcher: &[S],
        options: &Options,
    ) -> Result<Self> {
        let image = image::image()?;
        let files = Files::new()?;
        let initramfs = if options.files.is_empty() {
            reachable(&image.initramfs)?
        } else {
            let all = files.dir().join("initramfs.cpio");
            image::extend(&image.initramfs, &options.files, &all)?;
            all
        };
        let forwards: String = options
            .hostfwd
            .iter()
            .map(|forward| format!(",hostfwd={forward}"))
            .collect();
        let default = format!("user,ipv4=on,ipv6=on{forwards}");
        let netdev = options.netdev.as_deref().unwrap_or(&default);
        let (kind, settings) = netdev.split_once(',').unwrap_or((netdev, ""));
        // The kernel stops unpacking files, without an error, when half of the memory is full.
        let memory = if options.files.is_empty() {
            "256"
        } else {
            "512"
        };
        let mac = options.mac.iter().map(|mac| format!(",mac={mac}"));
        let card = format!(
            "virtio-net-pci,netdev=n0,romfile={}",
            mac.collect::<String>()
        );
        let arguments = [
            "-m",
            memory,
            "-kernel",
            &reachable(&image.kernel)?.display().to_string(),
            "-initrd",
            &initramfs.display().to_string(),
            "-append",
            KERNEL_ARGUMENTS,
            "-netdev",
            &format!("{kind},id=n0,{settings}"),
            "-device",
            &card,
            "-chardev",
            &format!("file,id=console,path={}", files.console().display()),
            "-serial",
            "chardev:console",
            "-chardev",
            "stdio,id=control,signal=off",
            "-serial",
            "chardev:control",
        ];
        let mut arguments: Vec<String> = arguments.map(str::to_owned).into();
        arguments.extend_from_slice(&options.arguments);
        let qemu = Qemu::start(host, launcher, files, &arguments)?;
        qemu.lines_until("@ready", BOOT).context("boot the guest")?;
        Ok(Self { qemu, commands: 0 })
    }

    /// Makes attempts in the guest, one after the other; options of the probe may come first.
    pub fn probe(&mut self, attempts: &[&str]) -> Result<Vec<ProbeResult>> {
        let output = self.shell(&format!("probe {}", attempts.join(" ")))?;
        probe::read_lines(&output)
    }

    /// Makes one attempt in the guest.
    pub fn attempt(&mut self, attempt: &str) -> Result<ProbeResult> {
        self.probe(&[attempt])?
            .pop()
            .context("one attempt has one outcome")
    }

    /// Repeats one attempt in the guest as fast as it goes.
    pub fn flood(&mut self, count: u64, attempt: &str) -> Result<Flood> {
        let output = self.shell(&format!("probe --flood {count} {attempt}"))?;
        probe::read_lines(&output)?
            .pop()
            .context("a flood has a summary")
    }

    /// Makes one kind of traffic in the guest for so many milliseconds: `upload/198.51.100.7/8080`.
    pub fn load(&mut self, ms: u64, load: &str) -> Result<Load> {
        let output = self.shell(&format!("probe --for-ms {ms} --load {load}"))?;
        probe::read_lines(&output)?
            .pop()
            .context("a load has a summary")
    }

    /// Starts services in the guest, such as `tcp/8080`, that greet with `hello from the probe`.
    pub fn serve(&mut self, services: &[&str]) -> Result<()> {
        let services = services.join(" ");
        let wait = "while kill -0 $! && ! grep -q serving /tmp/serve; do sleep 0.05; done";
        self.shell(&format!(
            ": >/tmp/serve; probe --serve {services} >/tmp/serve 2>&1 & {wait}"
        ))?;
        let output = self.shell("cat /tmp/serve")?;
        if !output.contains("serving") {
            bail!("the guest cannot serve {services}: {output}");
        }
        Ok(())
    }

    /// Starts a TCP service in the guest, for ports forwarded to it.
    pub fn listen_tcp(&mut self, port: u16) -> Result<()> {
        self.serve(&[&format!("tcp/{port}")])
    }

    /// Runs a command in the guest's shell and returns what it prints; an error if it fails.
    pub fn shell(&mut self, command: &str) -> Result<String> {
        self.commands += 1;
        let number = self.commands;
        self.qemu.say(&format!("{number} {command}"))?;
        let mut lines = self
            .qemu
            .lines_until(&format!("@done {number}"), COMMAND)
            .with_context(|| format!("run in the guest: {command}"))?;
        let status = lines.pop().unwrap_or_default();
        let output = lines.join("\n");
        if status != "@status 0" {
            bail!("in the guest, {command}: {status}\n{output}");
        }
        Ok(output)
    }

    /// The process that was started: the launcher's, or QEMU's if there is none.
    pub fn process(&mut self) -> &mut Process {
        self.qemu.process()
    }

    /// The guest's console, and what QEMU and its launcher wrote to stderr.
    #[must_use]
    pub fn logs(&self) -> String {
        self.qemu.logs()
    }

    /// What QEMU and its launcher wrote to stderr.
    pub fn stderr(&self) -> Result<String> {
        let path = self.qemu.files().stderr();
        std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
    }
}

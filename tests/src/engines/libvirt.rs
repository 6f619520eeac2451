//! A host with libvirt, and guests that libvirt starts. They are those of [`guest`](crate::guest), under emulation.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    os::{
        fd::AsFd as _,
        unix::net::{UnixListener, UnixStream},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::Room;
use crate::{
    debian,
    guest::image,
    probe::{ProbeResult, read_lines},
    process::Process,
    reachable::reachable,
    run::wait_until,
    world::World,
};

/// How long the guest may take to boot, and for a command.
const PATIENCE: Duration = Duration::from_secs(120);

/// The users and groups that Debian's packages make when they are installed, and settings that do without a system's log,
/// SELinux and AppArmor.
const PREPARE: &str = r#"set -e
useradd --system libvirt-qemu
useradd --system libvirt-dnsmasq
groupadd --force libvirt
groupadd --force kvm
cat > /etc/libvirt/qemu.conf <<CONF
user = "root"
group = "root"
security_driver = "none"
namespaces = []
stdio_handler = "file"
remember_owner = 0
CONF
cat > /etc/libvirt/libvirtd.conf <<CONF
unix_sock_group = "root"
auth_unix_rw = "none"
log_outputs = "3:stderr"
CONF
"#;

impl Room {
    /// Makes a host with libvirt in the network of the host of a world.
    pub fn with_libvirt(world: &World, nameserver: &str) -> Result<Self> {
        let room = Self::with(&debian::libvirt()?, world, nameserver)?;
        room.output(&["sh", "-c", PREPARE])?;
        Ok(room)
    }

    /// Starts libvirtd, in a cgroup of its own, and waits until it answers.
    pub fn start_libvirtd(&self) -> Result<Process> {
        let libvirtd = self.start("libvirtd", &[])?;
        let answers = wait_until("libvirtd answers", || {
            Ok(self.run(&["virsh", "list"])?.code() == Some(0))
        });
        answers.with_context(|| self.log_of("libvirtd"))?;
        Ok(libvirtd)
    }

    /// The XML of a guest, with elements of the domain and with interfaces. It is controlled by [`Control`].
    pub fn domain(&self, name: &str, elements: &str, interfaces: &str) -> Result<String> {
        let image = image::image()?;
        let kernel = reachable(&image.kernel)?;
        let initramfs = reachable(&image.initramfs)?;
        let (kernel, initramfs) = (kernel.display(), initramfs.display());
        Ok(format!(
            "<domain type='qemu'>
               <name>{name}</name><memory unit='MiB'>256</memory>{elements}
               <os>
                 <type arch='x86_64' machine='pc'>hvm</type>
                 <kernel>{kernel}</kernel><initrd>{initramfs}</initrd>
                 <cmdline>console=ttyS0 quiet panic=-1 mitigations=off tsc=reliable no_timer_check nokaslr</cmdline>
               </os>
               <features><acpi/></features>
               <devices>
                 {interfaces}
                 <serial type='file'><source path='/run/{name}.console'/><target port='0'/></serial>
                 <serial type='unix'>
                   <source mode='connect' path='/run/{name}.control'/><target port='1'/>
                 </serial>
                 <memballoon model='none'/>
               </devices>
             </domain>"
        ))
    }

    /// Listens for the guest with this name, which is not started yet.
    pub fn control(&self, name: &str) -> Result<Control> {
        let path = self.path(&format!("/run/{name}.control"));
        let _ = fs::remove_file(&path);
        Ok(Control {
            listener: UnixListener::bind(path)?,
            lines: None,
            commands: 0,
        })
    }
}

/// The second serial line of a guest, by which a test drives it.
#[derive(Debug)]
pub struct Control {
    listener: UnixListener,
    lines: Option<BufReader<UnixStream>>,
    commands: u32,
}

impl Control {
    /// Whether QEMU has connected, which it does at its start.
    pub fn has_started(&self) -> Result<bool> {
        self.is_ready(PollTimeout::ZERO)
    }

    fn is_ready(&self, timeout: PollTimeout) -> Result<bool> {
        let mut ready = [PollFd::new(self.listener.as_fd(), PollFlags::POLLIN)];
        Ok(poll(&mut ready, timeout)? == 1)
    }

    /// Waits until the guest has booted.
    pub fn await_boot(&mut self) -> Result<()> {
        ensure!(
            self.is_ready(PollTimeout::try_from(PATIENCE)?)?,
            "QEMU does not connect"
        );
        let (stream, _) = self.listener.accept()?;
        stream.set_read_timeout(Some(PATIENCE))?;
        self.lines = Some(BufReader::new(stream));
        self.lines_until("@ready").context("boot the guest")?;
        Ok(())
    }

    /// Makes attempts in the guest, one after the other.
    pub fn probe(&mut self, attempts: &[&str]) -> Result<Vec<ProbeResult>> {
        read_lines(&self.shell(&format!("probe {}", attempts.join(" ")))?)
    }

    /// Runs a command in the guest's shell, which must succeed; returns what it prints.
    pub fn shell(&mut self, command: &str) -> Result<String> {
        self.commands += 1;
        let number = self.commands;
        let lines = self.lines.as_mut().context("the guest has not booted")?;
        writeln!(lines.get_mut(), "{number} {command}")?;
        let mut lines = self.lines_until(&format!("@done {number}"))?;
        let status = lines.pop().unwrap_or_default();
        let output = lines.join("\n");
        ensure!(status == "@status 0", "{command}: {status}\n{output}");
        Ok(output)
    }

    /// The lines before one.
    fn lines_until(&mut self, end: &str) -> Result<Vec<String>> {
        let from = self.lines.as_mut().context("the guest has not booted")?;
        let deadline = Instant::now() + PATIENCE;
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            let read = from.read_line(&mut line);
            let read = read.with_context(|| format!("the guest is silent after {lines:?}"))?;
            ensure!(read > 0, "the guest has ended after {lines:?}");
            ensure!(Instant::now() < deadline, "no {end:?} after {lines:?}");
            let line = line.trim_end();
            if line == end {
                return Ok(lines);
            }
            lines.push(line.to_owned());
        }
    }
}

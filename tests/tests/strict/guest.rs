//! A real guest works under `--strict` as it does without: what it needs is read from QEMU's arguments.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _},
    net::TcpStream,
    os::unix::{fs::chown, net::UnixStream},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;
use tests::{
    fence::Fence,
    guest::{Guest, Options},
    namespace::NOBODY,
    workspace,
    world::World,
};

/// The guest's port 22 on the host.
const FORWARDED: u16 = 2222;
/// The first port of VNC, and the display.
const VNC: (u16, u16) = (5900, 7);

/// A directory with a guest's files, which belong to its user.
struct Machine {
    directory: TempDir,
}

impl Machine {
    fn new() -> Result<Self> {
        let directory = tempfile::Builder::new()
            .prefix("qfence-machine-")
            .tempdir_in("/var/tmp")?;
        let machine = Self { directory };
        for image in ["disk.raw", "snapshot.raw"] {
            fs::write(machine.path(image), vec![0; 1 << 20])?;
        }
        fs::create_dir(machine.path("share"))?;
        fs::create_dir(machine.path("run"))?;
        for name in ["", "disk.raw", "snapshot.raw", "share", "run"] {
            chown(machine.path(name), Some(NOBODY.uid), Some(NOBODY.gid))?;
        }
        workspace::make_readable(machine.directory.path())?;
        Ok(machine)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// QEMU's arguments, and the module for its disks.
    fn options(&self) -> Options {
        let of = |name: &str| self.path(name).display().to_string();
        let arguments = [
            "-drive",
            &format!("file={},if=virtio,format=raw", of("disk.raw")),
            "-drive",
            &format!(
                "file={},if=virtio,format=raw,snapshot=on",
                of("snapshot.raw")
            ),
            "-fsdev",
            &format!(
                "local,id=share,path={},security_model=mapped-xattr",
                of("share")
            ),
            "-device",
            "virtio-9p-pci,fsdev=share,mount_tag=share",
            "-qmp",
            &format!("unix:{},server=on,wait=off", of("run/qmp")),
            "-pidfile",
            &of("run/pid"),
            "-vnc",
            &format!("127.0.0.1:{}", VNC.1),
        ];
        let module = workspace::root().join("target/guest/kernel/virtio_blk.ko");
        Options {
            hostfwd: vec![format!("tcp:127.0.0.1:{FORWARDED}-:22")],
            arguments: arguments.map(str::to_owned).into(),
            files: vec![("/lib/modules/virtio_blk.ko".into(), module)],
            ..Options::default()
        }
    }

    /// Uses all of it from the guest and from the host.
    fn use_all(&self, world: &World, guest: &mut Guest) -> Result<()> {
        guest.shell("insmod /lib/modules/virtio_blk.ko")?;
        for disk in ["vda", "vdb"] {
            // The kernel makes the node some time after the module is there.
            guest.shell(&format!(
                "while ! [ -b /dev/{disk} ]; do sleep 0.05; done; echo written | dd of=/dev/{disk} conv=fsync && sync"
            ))?;
        }
        let begins =
            |name: &str| -> Result<bool> { Ok(fs::read(self.path(name))?.starts_with(b"written")) };
        ensure!(begins("disk.raw")?, "the disk was not written");
        ensure!(
            !begins("snapshot.raw")?,
            "the image of the snapshot was written"
        );
        guest.listen_tcp(22)?;
        ensure!(
            greeting(world, FORWARDED)?.contains("hello from"),
            "hostfwd"
        );
        ensure!(greeting(world, VNC.0 + VNC.1)?.contains("RFB"), "VNC");
        let monitor = UnixStream::connect(self.path("run/qmp")).context("QMP")?;
        monitor.set_read_timeout(Some(Duration::from_secs(60)))?;
        ensure!(is_greeted(monitor)?, "the monitor ended without a greeting");
        let pid = fs::read_to_string(self.path("run/pid"))?;
        ensure!(
            Path::new("/proc").join(pid.trim()).exists(),
            "pid file: {pid:?}"
        );
        Ok(())
    }
}

/// Whether QEMU's monitor greets who connects to it.
///
/// An event that happens at that moment (a client of VNC that left) is sent before the greeting.
fn is_greeted(monitor: UnixStream) -> Result<bool> {
    for line in BufReader::new(monitor).lines() {
        if line?.starts_with("{\"QMP\"") {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The first bytes that a service of the host says.
fn greeting(world: &World, port: u16) -> Result<String> {
    world.host.run(|| {
        let mut stream = TcpStream::connect(("127.0.0.1", port))
            .with_context(|| format!("connect to port {port}"))?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        let mut bytes = [0; 64];
        let begun = Instant::now();
        let mut length = 0;
        while length < 10 && begun.elapsed() < Duration::from_secs(60) {
            match stream.read(&mut bytes[length..])? {
                0 => break,
                more => length += more,
            }
        }
        Ok(String::from_utf8_lossy(&bytes[..length]).into_owned())
    })
}

#[test]
fn a_guest_works_under_strict_as_it_does_without() -> Result<()> {
    let world = World::new()?;
    for options in [
        None,
        Some(&["--user", "nobody"][..]),
        Some(&["--user", "nobody", "--strict"]),
    ] {
        let machine = Machine::new()?;
        let fence;
        let launcher = match options {
            Some(options) => {
                fence = Fence::new("strict-guest")?.with(options);
                fence.launcher()
            }
            None => Vec::new(),
        };
        let describe = || format!("with {options:?}");
        let mut guest =
            Guest::boot(&world, &launcher, &machine.options()).with_context(describe)?;
        let used = machine.use_all(&world, &mut guest);
        used.with_context(|| guest.logs()).with_context(describe)?;
    }
    Ok(())
}

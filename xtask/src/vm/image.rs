//! The machine's disk, and the kernel and initramfs of its release. They are made once, and again when their recipe changes.
//! Packages for x86_64 are installed. Those for aarch64 are only unpacked, because their scripts cannot run on another
//! processor.

use std::{
    ffi::OsString,
    fs::{self, File},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context as _, Result, bail};

use super::sources::{Archives, RELEASE};
use crate::{arch::Arch, report, shell};

/// Packages besides those of priority important, which are the packages of a fresh Debian.
const PACKAGES: &str = "bash-completion,busybox-static,cpio,dbus,dnsmasq-base,initramfs-tools,libpam-systemd,\
    linux-image-cloud-amd64,lz4,man-db,qemu-system-x86,rsyslog";
/// The packages that are unpacked for aarch64, with those on which they depend. No kernel is among them.
const UNPACKED: &str = "?priority(required),busybox-static,dbus,dnsmasq-base,iproute2,kmod,\
    libpam-systemd,nftables,procps,rsyslog,systemd-sysv,udev";
/// Runs before packages are unpacked.
const BEFORE_UNPACKING: &str = include_str!("before-unpacking.sh");
/// Runs after packages are unpacked, before [`AFTER`] in the same shell.
const AFTER_UNPACKING: &str = include_str!("after-unpacking.sh");
/// Runs before the kernel is installed: selects the contents of the initramfs.
const BEFORE: &str = include_str!("before-packages.sh");
/// Runs after all packages are installed.
const AFTER: &str = include_str!("after-packages.sh");
/// Files that nobody reads there.
const LEFT_OUT: [&str; 3] = [
    "/usr/share/doc/*",
    "/usr/share/locale/*",
    "/usr/share/man/*",
];
/// The size of the disk in bytes. The file is sparse and uses about 500 MB.
const SIZE: u64 = 2 << 30;

/// The machine's root file system.
#[derive(Debug)]
pub(super) struct Root {
    /// Its disk, ext4.
    pub(super) disk: PathBuf,
    /// The kernel that is installed there and its initramfs, if there is one.
    pub(super) kernel: Option<(PathBuf, PathBuf)>,
}

/// The files that QEMU boots.
#[derive(Debug)]
pub(super) struct Image {
    /// The root file system, ext4.
    pub(super) disk: PathBuf,
    /// The kernel.
    pub(super) kernel: PathBuf,
    /// The kernel's initramfs.
    pub(super) initramfs: PathBuf,
    /// A file system with the kernel's modules, if they are not on the disk. The initramfs mounts it.
    pub(super) modules: Option<PathBuf>,
}

/// The root file system below `dir`; made if it is missing.
pub(super) fn root(arch: Arch, dir: &Path) -> Result<Root> {
    // Excludes another `cargo xtask`. Closing the descriptor releases the lock.
    let lock = File::open(dir).with_context(|| format!("opening {}", dir.display()))?;
    lock.lock()
        .with_context(|| format!("locking {}", dir.display()))?;
    let mut recipe = DefaultHasher::new();
    if is_installed(arch) {
        (PACKAGES, BEFORE, AFTER, LEFT_OUT, SIZE, RELEASE).hash(&mut recipe);
    } else {
        let hooks = (BEFORE_UNPACKING, AFTER_UNPACKING, AFTER);
        (UNPACKED, hooks, LEFT_OUT, SIZE, RELEASE).hash(&mut recipe);
    }
    let kept = dir.join(format!("debian-{:016x}", recipe.finish()));
    if !kept.exists() {
        make(arch, dir, &kept).context("making the machine's disk")?;
    }
    let own = (kept.join("vmlinuz"), kept.join("initrd.img"));
    Ok(Root {
        disk: kept.join("disk.ext4"),
        kernel: is_installed(arch).then_some(own),
    })
}

/// Whether the machine's packages are installed, and not only unpacked.
fn is_installed(arch: Arch) -> bool {
    arch == Arch::X86_64
}

fn make(arch: Arch, dir: &Path, kept: &Path) -> Result<()> {
    let sources = Archives::of_apt()?.of_release();
    if !shell::is_root() {
        // Asks for the password here: later a spinner would overwrite the prompt.
        shell::run(shell::program("sudo").arg("--validate"))
            .context("making the machine's disk needs root or sudo: root owns its files")?;
    }
    let root = dir.join("root");
    let made = tempfile::tempdir_in(dir)?;
    // Root owns this directory: the caller could not remove it together with a temporary directory.
    remove(&root)?;
    let outcome = bootstrap(arch, &sources, made.path(), &root)
        .and_then(|()| pack(arch, &root, made.path()).context("packing the disk"));
    let removed = remove(&root);
    outcome?;
    removed?;
    for old in fs::read_dir(dir)? {
        let old = old?;
        if old.file_name().to_string_lossy().starts_with("debian-") {
            fs::remove_dir_all(old.path())
                .with_context(|| format!("removing {}", old.path().display()))?;
        }
    }
    fs::rename(made.keep(), kept).context("putting the image in place")
}

fn remove(root: &Path) -> Result<()> {
    let mut rm = shell::as_root("rm");
    shell::run(
        rm.args(["--recursive", "--force", "--one-file-system", "--"])
            .arg(root),
    )
}

fn bootstrap(arch: Arch, sources: &str, made: &Path, root: &Path) -> Result<()> {
    let list = made.join("sources.list");
    fs::write(&list, sources).with_context(|| format!("writing {}", list.display()))?;
    let mut command = shell::as_root("mmdebstrap");
    command.args(["--mode=root", "--format=directory"]);
    command.arg(format!("--architectures={}", arch.debian()));
    for left_out in LEFT_OUT {
        command.arg(format!("--dpkgopt=path-exclude={left_out}"));
    }
    if is_installed(arch) {
        command.args(["--variant=important", &format!("--include={PACKAGES}")]);
        command.arg(format!("--essential-hook={BEFORE}"));
        command.arg(format!("--customize-hook={AFTER}"));
    } else {
        command.arg("--variant=extract");
        for package in UNPACKED.split(',') {
            command.arg(format!("--include={package}"));
        }
        command.arg(format!("--setup-hook={BEFORE_UNPACKING}"));
        command.arg(format!("--extract-hook={AFTER_UNPACKING}{AFTER}"));
    }
    command.arg(RELEASE).args([root, &list]);
    let what = format!(
        "Debian 12 ({}) for the machine, from the archive that apt uses, two minutes",
        arch.debian()
    );
    report::step(&what, &mut command)?;
    fs::remove_file(&list).with_context(|| format!("removing {}", list.display()))
}

/// Makes a file system from a directory, without mounting anything.
fn pack(arch: Arch, root: &Path, made: &Path) -> Result<()> {
    let own_kernel: &[&str] = if is_installed(arch) {
        &["vmlinuz", "initrd.img"]
    } else {
        &[]
    };
    for kind in own_kernel {
        fs::copy(boot_file(root, kind)?, made.join(kind))
            .with_context(|| format!("copying the machine's {kind}"))?;
    }
    let disk = made.join("disk.ext4");
    // Created here, so that it belongs to the caller.
    let file = File::create(&disk).with_context(|| format!("creating {}", disk.display()))?;
    file.set_len(SIZE)?;
    let mut command = shell::as_root("mke2fs");
    command.args(["-q", "-F", "-t", "ext4", "-d"]);
    command.args([root, &disk]).stdin(Stdio::null());
    report::step("the machine's disk, from the files", &mut command)
}

/// The one file in `/boot` whose name begins with `kind` and a version.
fn boot_file(root: &Path, kind: &str) -> Result<PathBuf> {
    let boot = root.join("boot");
    let prefix = format!("{kind}-");
    let mut found = Vec::new();
    for entry in fs::read_dir(&boot).with_context(|| format!("listing {}", boot.display()))? {
        let entry = entry?;
        let name: OsString = entry.file_name();
        if name.to_string_lossy().starts_with(&prefix) {
            found.push(entry.path());
        }
    }
    match found.as_slice() {
        [one] => Ok(one.clone()),
        _ => bail!("expected one {prefix}* in the machine's /boot, found {found:?}"),
    }
}

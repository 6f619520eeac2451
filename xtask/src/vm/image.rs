//! The machine's disk, kernel and initramfs. They are made once, and again when their recipe changes.

use std::{
    ffi::OsString,
    fs::{self, File},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context as _, Result, bail};

use super::sources::{Archives, RELEASE};
use crate::{report, shell};

/// Packages besides those of priority important, which are the packages of a fresh Debian.
const PACKAGES: &str = "bash-completion,busybox-static,cpio,dbus,dnsmasq-base,initramfs-tools,libpam-systemd,\
    linux-image-cloud-amd64,lz4,man-db,qemu-system-x86,rsyslog";
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

/// The image below `dir`; made if it is missing.
pub(super) fn image(dir: &Path) -> Result<Image> {
    // Excludes another `cargo xtask`. Closing the descriptor releases the lock.
    let lock = File::open(dir).with_context(|| format!("opening {}", dir.display()))?;
    lock.lock()
        .with_context(|| format!("locking {}", dir.display()))?;
    let mut recipe = DefaultHasher::new();
    (PACKAGES, BEFORE, AFTER, LEFT_OUT, SIZE, RELEASE).hash(&mut recipe);
    let kept = dir.join(format!("debian-{:016x}", recipe.finish()));
    if !kept.exists() {
        make(dir, &kept).context("making the machine's disk")?;
    }
    Ok(Image {
        disk: kept.join("disk.ext4"),
        kernel: kept.join("vmlinuz"),
        initramfs: kept.join("initrd.img"),
        modules: None,
    })
}

fn make(dir: &Path, kept: &Path) -> Result<()> {
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
    let outcome = bootstrap(&sources, made.path(), &root)
        .and_then(|()| pack(&root, made.path()).context("packing the disk"));
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

fn bootstrap(sources: &str, made: &Path, root: &Path) -> Result<()> {
    let list = made.join("sources.list");
    fs::write(&list, sources).with_context(|| format!("writing {}", list.display()))?;
    let mut command = shell::as_root("mmdebstrap");
    command.args([
        "--mode=root",
        "--variant=important",
        "--architectures=amd64",
    ]);
    command.args(["--format=directory", &format!("--include={PACKAGES}")]);
    for left_out in LEFT_OUT {
        command.arg(format!("--dpkgopt=path-exclude={left_out}"));
    }
    command.arg(format!("--essential-hook={BEFORE}"));
    command.arg(format!("--customize-hook={AFTER}"));
    command.arg(RELEASE).args([root, &list]);
    report::step(
        "Debian 12 for the machine, from the archive that apt uses, two minutes",
        &mut command,
    )?;
    fs::remove_file(&list).with_context(|| format!("removing {}", list.display()))
}

/// Makes a file system from a directory, without mounting anything.
fn pack(root: &Path, made: &Path) -> Result<()> {
    for kind in ["vmlinuz", "initrd.img"] {
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

//! What the machine boots from with a kernel of another suite: the kernel, an initramfs, and a file system with its modules.
//! They are made once, and again when their recipe changes.

use std::{
    fs::{self, File},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context as _, Result, bail};

use super::{Kernel, archive, initramfs};
use crate::{arch::Arch, report, shell};

/// Raised when what is below changes in what it makes.
const RECIPE: u32 = 1;

/// Where packages have modules, each in a directory of the kernel's release.
const MODULES: [&str; 2] = ["lib/modules", "usr/lib/modules"];

/// The room of the modules' file system beside the modules, in kB.
const SPARE: u64 = 32 << 10;

/// The files.
#[derive(Debug)]
pub(super) struct Boot {
    /// The kernel.
    pub(super) kernel: PathBuf,
    /// An initramfs that mounts the machine's disk and the modules.
    pub(super) initramfs: PathBuf,
    /// The contents of /lib/modules, ext4.
    pub(super) modules: PathBuf,
}

/// The files of a kernel below `dir`; made if they are missing. `disk` has the program of the initramfs.
pub(super) fn files(arch: Arch, kernel: Kernel, disk: &Path, dir: &Path) -> Result<Boot> {
    // Excludes another `cargo xtask`. Closing the descriptor releases the lock.
    let lock = File::open(dir).with_context(|| format!("opening {}", dir.display()))?;
    lock.lock()
        .with_context(|| format!("locking {}", dir.display()))?;
    let mut recipe = DefaultHasher::new();
    (RECIPE, initramfs::RECIPE, kernel.suites(arch)).hash(&mut recipe);
    let kept = dir.join(format!("{}{:016x}", prefix(kernel), recipe.finish()));
    if !kept.exists() {
        make(arch, kernel, disk, dir, &kept)?;
    }
    Ok(Boot {
        kernel: kept.join("vmlinuz"),
        initramfs: kept.join("initramfs"),
        modules: kept.join("modules.ext4"),
    })
}

/// How the names of the directories of a kernel begin.
fn prefix(kernel: Kernel) -> String {
    format!("kernel-{}-", kernel.name())
}

fn make(arch: Arch, kernel: Kernel, disk: &Path, dir: &Path, kept: &Path) -> Result<()> {
    let found = archive::find(arch, kernel, &dir.join("suites"))?;
    let (made, root) = (tempfile::tempdir_in(dir)?, tempfile::tempdir_in(dir)?);
    found.unpack(root.path())?;
    let modules = modules(root.path())?;
    let release = only_entry(&modules)?;
    // The kernel is in /boot or beside its modules, which depends on the suite.
    let places = [
        root.path().join("boot").join(format!("vmlinuz-{release}")),
        modules.join(&release).join("vmlinuz"),
    ];
    let Some(vmlinuz) = places.iter().find(|place| place.exists()) else {
        bail!("the packages of {release} have no kernel");
    };
    fs::copy(vmlinuz, made.path().join("vmlinuz")).context("copying the kernel")?;
    let mut depmod = shell::administrators("depmod");
    depmod.arg("--basedir").arg(root.path()).arg(&release);
    shell::output(&mut depmod)?;
    initramfs::make(root.path(), &release, disk, &made.path().join("initramfs"))
        .context("making the initramfs")?;
    pack(&modules, &made.path().join("modules.ext4"))?;
    let prefix = prefix(kernel);
    for old in fs::read_dir(dir)? {
        let old = old?;
        if old.file_name().to_string_lossy().starts_with(&prefix) {
            fs::remove_dir_all(old.path())
                .with_context(|| format!("removing {}", old.path().display()))?;
        }
    }
    fs::rename(made.keep(), kept).context("putting the kernel in place")
}

/// The directory lib/modules in `root`, to which the modules are moved if they are elsewhere.
fn modules(root: &Path) -> Result<PathBuf> {
    let [wanted, other] = MODULES.map(|place| root.join(place));
    if !wanted.exists() {
        fs::create_dir_all(root.join("lib"))?;
        fs::rename(&other, &wanted).context("the packages have no modules")?;
    }
    Ok(wanted)
}

/// The name of the only entry of a directory.
fn only_entry(dir: &Path) -> Result<String> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir)? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    match names.as_slice() {
        [one] => Ok(one.clone()),
        _ => bail!("expected one kernel in {}, found {names:?}", dir.display()),
    }
}

/// Makes a file system from a directory, without mounting anything.
fn pack(from: &Path, to: &Path) -> Result<()> {
    let mut du = shell::program("du");
    let used = shell::output(du.args(["--summarize", "--block-size=1K"]).arg(from))?;
    let used = used.split_whitespace().next().unwrap_or_default();
    let used: u64 = used.parse().context("reading the size of the modules")?;
    let file = File::create(to).with_context(|| format!("creating {}", to.display()))?;
    file.set_len((used + used / 4 + SPARE) << 10)?;
    let mut mke2fs = shell::administrators("mke2fs");
    mke2fs.args(["-q", "-F", "-t", "ext4", "-d"]).arg(from);
    report::step("the modules", mke2fs.arg(to).stdin(Stdio::null()))
}

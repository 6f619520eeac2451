//! The initramfs of a kernel of another suite: busybox, a script, and the modules of the machine's disk.

use std::{
    ffi::OsStr,
    fs::{self, File},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::Stdio,
};

use anyhow::{Context as _, Result, bail};

use crate::shell;

/// Loads the modules, mounts the disk and all modules, and starts the machine's init.
const INIT: &str = include_str!("../kernel-init.sh");

/// The modules that it needs, with those on which they depend. A kernel without one of the optional ones does not need it.
const MODULES: [(&str, bool); 4] = [
    ("virtio_pci", false),
    ("virtio_blk", false),
    ("crc32c_generic", true),
    ("ext4", false),
];

/// What it is made of, beside the kernel's modules.
pub(super) const RECIPE: (&str, [(&str, bool); 4]) = (INIT, MODULES);

/// Writes the initramfs of the kernel `release`, whose modules are below `root`, to `to`. The program comes from `disk`.
pub(super) fn make(root: &Path, release: &str, disk: &Path, to: &Path) -> Result<()> {
    let staged = tempfile::tempdir()?;
    for below in ["bin", "dev", "modules", "proc", "root", "sys"] {
        fs::create_dir(staged.path().join(below))?;
    }
    let busybox = staged.path().join("bin/busybox");
    let mut debugfs = shell::administrators("debugfs");
    debugfs.arg("-R");
    debugfs.arg(format!("dump /usr/bin/busybox {}", busybox.display()));
    shell::output(debugfs.arg(disk))?;
    let init = staged.path().join("init");
    fs::write(&init, INIT)?;
    for executable in [&busybox, &init] {
        fs::set_permissions(executable, fs::Permissions::from_mode(0o755))
            .with_context(|| format!("the file {}", executable.display()))?;
    }
    let mut number = 0;
    for (name, is_optional) in MODULES {
        for path in dependencies(root, release, name, is_optional)? {
            // The script loads them in the order of their names. One that is there already is not an error.
            let module = staged.path().join(format!("modules/{number:02}.ko"));
            decompress(Path::new(&path), &module)?;
            number += 1;
        }
    }
    let mut archive = shell::program("sh");
    archive.args(["-c", "find . | cpio --quiet --create --format=newc"]);
    archive.current_dir(staged.path());
    archive.stdout(File::create(to).with_context(|| format!("creating {}", to.display()))?);
    shell::run(&mut archive)
}

/// The paths of a module and of those on which it depends, in the order in which they are loaded.
fn dependencies(root: &Path, release: &str, name: &str, is_optional: bool) -> Result<Vec<String>> {
    let mut modprobe = shell::administrators("modprobe");
    modprobe.args(["--config", "/dev/null", "--set-version", release]);
    modprobe.arg("--dirname").arg(root);
    match shell::output(modprobe.args(["--show-depends", name])) {
        Ok(depends) => Ok(paths(&depends)),
        Err(_) if is_optional => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// The paths in the output of `modprobe --show-depends`. A module that is part of the kernel has none.
fn paths(depends: &str) -> Vec<String> {
    let lines = depends.lines();
    let paths = lines.filter_map(|line| line.strip_prefix("insmod ")?.split(' ').next());
    paths.map(str::to_owned).collect()
}

fn decompress(from: &Path, to: &Path) -> Result<()> {
    let program = match from.extension().and_then(OsStr::to_str) {
        Some("ko") => "cat",
        Some("xz") => "xzcat",
        Some("zst") => "zstdcat",
        _ => bail!("{} is compressed in an unknown way", from.display()),
    };
    let file = File::create(to).with_context(|| format!("creating {}", to.display()))?;
    let mut command = shell::program(program);
    command.arg(from).stdin(Stdio::null()).stdout(file);
    shell::run(&mut command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_are_loaded_after_those_on_which_they_depend() {
        let depends = "insmod /tmp/x/lib/modules/6.1/kernel/lib/crc16.ko \n\
            builtin virtio_pci\ninsmod /tmp/x/lib/modules/6.1/kernel/fs/ext4/ext4.ko.xz \n";
        assert_eq!(
            paths(depends),
            [
                "/tmp/x/lib/modules/6.1/kernel/lib/crc16.ko",
                "/tmp/x/lib/modules/6.1/kernel/fs/ext4/ext4.ko.xz"
            ]
        );
    }
}

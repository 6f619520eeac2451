//! The boot files of the Linux guest: Debian's cloud kernel, and an initramfs of busybox, the kernel's virtio modules
//! and the probe. They are made once, kept in `target/guest`, and shared by all tests.

use std::{
    collections::BTreeSet,
    fs,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

use super::initramfs::Archive;
use crate::{
    debian, probe,
    workspace::{self, Once},
};

/// The package that depends on the package of the current kernel.
const METAPACKAGE: &str = "linux-image-cloud-amd64";
const INIT: &[u8] = include_bytes!("init.sh");
const BUSYBOX: &str = "/bin/busybox";
/// The commands of busybox that the guest can run by name.
const COMMANDS: [&str; 16] = [
    "cat", "echo", "grep", "insmod", "ip", "kill", "ls", "mount", "nc", "nslookup", "ping",
    "poweroff", "sh", "sleep", "stty", "wget",
];

/// The guest's kernel and initramfs.
#[derive(Clone, Debug)]
pub struct Image {
    /// The kernel.
    pub kernel: PathBuf,
    /// The initramfs.
    pub initramfs: PathBuf,
}

/// The image; it is built if it is missing or out of date.
pub fn image() -> Result<Image> {
    static IMAGE: Once<Image> = Once::new();
    IMAGE.get(build).context("build the guest's image")
}

fn build() -> Result<Image> {
    let probe = probe::built()?;
    let dir = workspace::guest_dir()?;
    let _lock = workspace::lock(&dir)?;
    let kernel = kernel(&dir).context("get the guest's kernel")?;
    let archive = archive(&kernel, &probe).context("pack the guest's initramfs")?;
    // The name contains a hash of the content, so that a guest that is starting keeps its file.
    let mut hasher = DefaultHasher::new();
    archive.hash(&mut hasher);
    let initramfs = dir.join(format!("initramfs-{:016x}.cpio", hasher.finish()));
    if !initramfs.exists() {
        workspace::write_atomically(&initramfs, &archive)?;
    }
    Ok(Image {
        kernel: kernel.join("vmlinuz"),
        initramfs,
    })
}

/// The file of a module of the guest's kernel, for example `cifs`.
pub fn module(name: &str) -> Result<PathBuf> {
    image()?;
    let path = workspace::guest_dir()?.join(format!("kernel/{name}.ko"));
    if !path.is_file() {
        bail!("the guest's kernel has no module {name}");
    }
    Ok(path)
}

/// Writes to `extended` the initramfs `base` with more files: pairs of a path in the guest, and the file's path here.
/// The kernel unpacks both archives in order.
pub(super) fn extend(base: &Path, files: &[(String, PathBuf)], extended: &Path) -> Result<()> {
    let read = |path: &Path| fs::read(path).with_context(|| format!("read {}", path.display()));
    let mut archive = Archive::new();
    let mut directories = BTreeSet::new();
    for (inside, outside) in files {
        let inside = inside.trim_start_matches('/');
        let parents = Path::new(inside).ancestors().skip(1);
        let mut parents: Vec<_> = parents
            .filter_map(Path::to_str)
            .filter(|p| !p.is_empty())
            .collect();
        parents.reverse();
        for parent in parents {
            if directories.insert(parent.to_owned()) {
                archive.directory(parent);
            }
        }
        archive.file(inside, &read(outside)?);
    }
    let mut bytes = read(base)?;
    bytes.extend(archive.finish());
    fs::write(extended, bytes).with_context(|| format!("write {}", extended.display()))
}

/// The directory of the unpacked kernel: `vmlinuz` and all modules side by side.
fn kernel(dir: &Path) -> Result<PathBuf> {
    let unpacked = dir.join("kernel");
    if unpacked.exists() {
        return Ok(unpacked);
    }
    let package = package()?;
    let temporary = tempfile::tempdir_in(dir)?;
    workspace::make_readable(temporary.path())?;
    let files = debian::unpack(&package, temporary.path())?;

    let kernel = temporary.path().join("kernel");
    fs::create_dir(&kernel)?;
    let version = package.trim_start_matches("linux-image-");
    fs::copy(
        files.join(format!("boot/vmlinuz-{version}")),
        kernel.join("vmlinuz"),
    )
    .context("copy the kernel")?;
    for module in find(&files, "ko")? {
        fs::copy(
            &module,
            kernel.join(module.file_name().context("a module has a name")?),
        )?;
    }
    fs::rename(&kernel, &unpacked).context("put the kernel in place")?;
    Ok(unpacked)
}

/// The name of the current kernel's package, such as `linux-image-6.1.0-56-cloud-amd64`.
fn package() -> Result<String> {
    for may_update in [true, false] {
        let known =
            debian::run("apt-cache", ["depends", METAPACKAGE], Path::new("/")).unwrap_or_default();
        let mut words = known
            .split_whitespace()
            .skip_while(|word| *word != "Depends:");
        if let Some(name) = words.nth(1) {
            return Ok(name.to_owned());
        }
        if may_update {
            debian::run("apt-get", ["update"], Path::new("/"))?;
        }
    }
    bail!("apt knows no package {METAPACKAGE}")
}

fn archive(kernel: &Path, probe: &Path) -> Result<Vec<u8>> {
    let read = |path: &Path| fs::read(path).with_context(|| format!("read {}", path.display()));
    let mut archive = Archive::new();
    for directory in [
        "bin",
        "dev",
        "etc",
        "lib",
        "lib/modules",
        "proc",
        "sys",
        "tmp",
    ] {
        archive.directory(directory);
    }
    archive.file("init", INIT);
    archive.file(
        "bin/busybox",
        &read(Path::new(BUSYBOX)).context("package busybox-static")?,
    );
    for command in COMMANDS {
        archive.symlink(&format!("bin/{command}"), "busybox");
    }
    archive.file("bin/probe", &read(probe)?);
    let mut modules = find(kernel, "ko")?;
    modules.sort();
    for module in modules {
        let name = module
            .file_name()
            .context("a module has a name")?
            .to_string_lossy();
        if name.starts_with("virtio") || name.contains("failover") {
            archive.file(&format!("lib/modules/{name}"), &read(&module)?);
        }
    }
    Ok(archive.finish())
}

/// All files below `dir` with this extension.
fn find(dir: &Path, extension: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| format!("list {}", dir.display()))? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            found.extend(find(&path, extension)?);
        } else if path.extension() == Some(extension.as_ref()) {
            found.push(path);
        }
    }
    Ok(found)
}

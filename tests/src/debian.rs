//! Unpacks Debian packages without installing them, so that no service is started and the machine is not changed.

use std::{
    ffi::OsStr,
    fs, io,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use crate::workspace;

/// Downloads a package, which apt verifies with the keys of the archive, and unpacks it into `files` in `directory`.
pub fn unpack(package: &str, directory: &Path) -> Result<PathBuf> {
    let download = || run("apt-get", ["download", "--quiet", package], directory);
    // The local package list may be older than the archive.
    download().or_else(|_| run("apt-get", ["update"], Path::new("/")).and_then(|_| download()))?;
    let archive = fs::read_dir(directory)?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<Vec<_>>>()?
        .into_iter()
        .find(|path| path.extension() == Some(OsStr::new("deb")))
        .context("apt-get downloaded nothing")?;
    let files = directory.join("files");
    run(
        "dpkg-deb",
        [OsStr::new("--extract"), archive.as_ref(), files.as_ref()],
        directory,
    )?;
    Ok(files)
}

/// Runs a program that must succeed; returns its output.
pub fn run<I, S>(program: &str, arguments: I, directory: &Path) -> Result<String>
where
    I: IntoIterator<Item = S>,
    S: AsRef<OsStr>,
{
    let mut command = Command::new(program);
    command
        .args(arguments)
        .current_dir(directory)
        .env("LC_ALL", "C");
    let output = command
        .output()
        .with_context(|| format!("run {command:?}"))?;
    if !output.status.success() {
        bail!(
            "{command:?}: {}\n{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The directory of Debian's Prometheus, with `prometheus` and `promtool`. It is unpacked at first use.
pub fn prometheus() -> Result<PathBuf> {
    static DIRECTORY: workspace::Once<PathBuf> = workspace::Once::new();
    DIRECTORY.get(|| {
        let parent = workspace::guest_dir()?;
        let _lock = workspace::lock(&parent)?;
        let unpacked = parent.join("prometheus");
        if unpacked.exists() {
            return Ok(unpacked);
        }
        let temporary = tempfile::tempdir_in(&parent)?;
        workspace::make_readable(temporary.path())?;
        let files = unpack("prometheus", temporary.path())?;
        fs::rename(files.join("usr/bin"), &unpacked).context("put Prometheus in place")?;
        Ok(unpacked)
    })
}

/// The packages of container engines and their runtimes, and of what their networks need.
const ENGINES: [&str; 9] = [
    "podman",
    "runc",
    "crun",
    "docker.io",
    "netavark",
    "aardvark-dns",
    "slirp4netns",
    "iptables",
    "busybox-static",
];

/// The packages of libvirt, and of what its networks need.
const LIBVIRT: [&str; 5] = [
    "libvirt-daemon-system",
    "libvirt-clients",
    "dnsmasq-base",
    "iptables",
    "tini",
];

/// The packages of LXC, and of what the test of its network needs.
const LXC: [&str; 3] = ["lxc", "iptables", "tini"];

/// The packages of a node of Kubernetes. Its containerd is that of [`NODE_SUITE`].
const NODE: [&str; 6] = [
    "runc",
    "containernetworking-plugins",
    "iptables",
    "curl",
    "busybox-static",
    "tini",
];

/// What the node does not use of the packages of containerd and of CNI: a third of it all.
const NODE_WITHOUT: [&str; 14] = [
    "bin/containerd-shim",
    "bin/containerd-shim-runc-v1",
    "lib/cni/bandwidth",
    "lib/cni/dhcp",
    "lib/cni/firewall",
    "lib/cni/host-device",
    "lib/cni/ipvlan",
    "lib/cni/macvlan",
    "lib/cni/portmap",
    "lib/cni/ptp",
    "lib/cni/sbr",
    "lib/cni/tuning",
    "lib/cni/vlan",
    "lib/cni/vrf",
];

/// The suite whose containerd has plugins; that of Debian 12 has not.
const NODE_SUITE: &str = "trixie";

/// The packages of programs and libraries that look names up, each in its own way.
const RESOLVERS: [&str; 7] = [
    "bind9-dnsutils",
    "curl",
    "libc-ares-dev",
    "libnss-resolve",
    "musl-tools",
    "python3-minimal",
    "systemd-resolved",
];

/// Links of a system whose `/bin`, `/sbin` and `/lib` are in `/usr`. Packages may have files at either path.
const MERGED: [&str; 3] = ["bin", "sbin", "lib"];

/// The files of podman and Docker with all that they need and this machine lacks, 250 MB. They are unpacked at first use,
/// and not installed.
pub fn engines() -> Result<PathBuf> {
    static DIRECTORY: workspace::Once<PathBuf> = workspace::Once::new();
    DIRECTORY.get(|| unpacked("engines", &ENGINES))
}

/// The files of libvirt with all that it needs and this machine lacks, 35 MB, likewise.
pub fn libvirt() -> Result<PathBuf> {
    static DIRECTORY: workspace::Once<PathBuf> = workspace::Once::new();
    DIRECTORY.get(|| unpacked("libvirt", &LIBVIRT))
}

/// The files of LXC with all that it needs and this machine lacks, 12 MB, likewise.
pub fn lxc() -> Result<PathBuf> {
    static DIRECTORY: workspace::Once<PathBuf> = workspace::Once::new();
    DIRECTORY.get(|| unpacked("lxc", &LXC))
}

/// The files of a node of Kubernetes, 120 MB, likewise: containerd of Debian 13, which needs nothing that Debian 12 has not.
pub fn cri() -> Result<PathBuf> {
    static DIRECTORY: workspace::Once<PathBuf> = workspace::Once::new();
    DIRECTORY.get(|| {
        unpacked_with("cri", &NODE, |directory, files| {
            unpack_of(NODE_SUITE, "containerd", directory, files)?;
            for path in NODE_WITHOUT {
                match fs::remove_file(files.join("usr").join(path)) {
                    // Its package is installed on this machine.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    removed => removed.context("take out what the node does not use")?,
                }
            }
            Ok(())
        })
    })
}

/// The files of clients of DNS with all that they need and this machine lacks, 10 MB, likewise.
pub fn resolvers() -> Result<PathBuf> {
    static DIRECTORY: workspace::Once<PathBuf> = workspace::Once::new();
    DIRECTORY.get(|| unpacked("resolvers", &RESOLVERS))
}

/// The directory `name` with the files of packages. It is made at first use.
fn unpacked(name: &str, packages: &[&str]) -> Result<PathBuf> {
    unpacked_with(name, packages, |_, _| Ok(()))
}

/// The same, with what `more` adds to the files, in a directory for it.
fn unpacked_with(
    name: &str,
    packages: &[&str],
    more: impl Fn(&Path, &Path) -> Result<()>,
) -> Result<PathBuf> {
    let parent = workspace::guest_dir()?;
    let _lock = workspace::lock(&parent)?;
    let unpacked = parent.join(name);
    if unpacked.exists() {
        return Ok(unpacked);
    }
    let temporary = tempfile::tempdir_in(&parent)?;
    workspace::make_readable(temporary.path())?;
    let files = unpack_missing(packages, temporary.path())?;
    more(temporary.path(), &files)?;
    for directory in MERGED {
        let beside = files.join(directory);
        if beside.is_dir() {
            let merged = files.join("usr").join(directory);
            fs::create_dir_all(&merged)?;
            let from = beside.join(".");
            let copy = [OsStr::new("-a"), from.as_ref(), merged.as_ref()];
            run("cp", copy, temporary.path())?;
            fs::remove_dir_all(&beside)?;
        }
    }
    fs::rename(&files, &unpacked).with_context(|| format!("put {name} in place"))?;
    Ok(unpacked)
}

/// Downloads packages with all that they depend on and that is not installed here, and unpacks them into `files` in
/// `directory`. One that is installed already is left out.
fn unpack_missing(packages: &[&str], directory: &Path) -> Result<PathBuf> {
    let files = directory.join("files");
    fs::create_dir(&files)?;
    let archives = directory.join("archives");
    fs::create_dir_all(archives.join("partial"))?;
    let option = format!("Dir::Cache::archives={}", archives.display());
    let download = || {
        let mut arguments = vec!["install", "--yes", "--quiet", "--no-install-recommends"];
        // With --download-only, nothing is installed.
        arguments.extend(["--download-only", "--option", &option]);
        arguments.extend(packages);
        run("apt-get", arguments, directory)
    };
    // The local package list may be older than the archive.
    download().or_else(|_| run("apt-get", ["update"], Path::new("/")).and_then(|_| download()))?;
    for entry in fs::read_dir(&archives)? {
        let archive = entry?.path();
        if archive.extension() == Some(OsStr::new("deb")) {
            let arguments = [OsStr::new("--extract"), archive.as_ref(), files.as_ref()];
            run("dpkg-deb", arguments, directory)?;
        }
    }
    fs::remove_dir_all(&archives)?;
    Ok(files)
}

/// Downloads a package of another suite of Debian, without those that it depends on, and unpacks it into `files`. apt gets
/// lists of its own in a directory, and verifies them as ever.
fn unpack_of(suite: &str, package: &str, directory: &Path, files: &Path) -> Result<()> {
    let archives = ["indextargets", "Created-By: Packages", "Label: Debian"];
    let format = ["--format", "$(REPO_URI)"];
    let archives = run("apt-get", [&archives[..], &format].concat(), directory)?;
    let archive = archives.lines().next();
    let archive = archive.context("the sources of this machine's apt have no Debian archive")?;
    let apt = directory.join(suite);
    fs::create_dir_all(apt.join("lists/partial"))?;
    fs::create_dir_all(apt.join("archives/partial"))?;
    let keyring = "/usr/share/keyrings/debian-archive-keyring.gpg";
    let line = format!("deb [signed-by={keyring}] {archive} {suite} main\n");
    fs::write(apt.join("sources.list"), line)?;
    fs::write(apt.join("status"), "")?;
    let options = [
        ("Dir::Etc::sourcelist", "sources.list"),
        ("Dir::State::lists", "lists"),
        ("Dir::State::status", "status"),
        ("Dir::Cache", ""),
    ];
    let options = options.map(|(key, below)| format!("{key}={}", apt.join(below).display()));
    let others = [
        "Dir::Etc::sourceparts=-",
        // The user of apt's own downloads cannot write here.
        "APT::Sandbox::User=",
        "Acquire::Languages=none",
        "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false",
    ];
    let options = options.iter().map(String::as_str).chain(others);
    let options: Vec<_> = options.flat_map(|option| ["-o", option]).collect();
    run("apt-get", [&options[..], &["update"]].concat(), &apt)?;
    let download = ["download", "--quiet", package];
    run("apt-get", [&options[..], &download].concat(), &apt)?;
    for entry in fs::read_dir(&apt)? {
        let archive = entry?.path();
        if archive.extension() == Some(OsStr::new("deb")) {
            let extract = [OsStr::new("--extract"), archive.as_ref(), files.as_ref()];
            run("dpkg-deb", extract, directory)?;
        }
    }
    Ok(())
}

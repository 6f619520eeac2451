//! The Debian packages that the project needs, with reasons, and a check for missing ones.

use std::{
    env,
    path::{Path, PathBuf},
};

use crate::{arch::Arch, shell};

/// A Debian package and its purpose.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Package {
    /// The name of the package.
    pub(crate) name: &'static str,
    /// How to find out that it, or an equivalent, is installed.
    probe: Probe,
    /// The purpose, shown to the user.
    pub(crate) reason: &'static str,
}

#[derive(Debug, PartialEq, Eq)]
enum Probe {
    /// The package itself is installed; there is no equivalent.
    Installed,
    /// A program of this name exists.
    Program(&'static str),
    /// This file exists.
    File(&'static str),
}

/// The compiler of the eBPF programs, for machines without another one.
const COMPILER: &[Package] = &[
    package(
        "rustc-web",
        Probe::Installed,
        "a Rust compiler that matches the next",
    ),
    package(
        "libstd-rust-web-dev-bpf",
        Probe::Installed,
        "the core library for eBPF programs",
    ),
];

/// The programs that the demo and the tests run.
const TOOLS: &[Package] = &[
    package(
        "qemu-system-x86",
        Probe::Program("qemu-system-x86_64"),
        "the machine that is fenced in the demo and the tests",
    ),
    package(
        "ipxe-qemu",
        Probe::File("/usr/lib/ipxe/qemu/pxe-virtio.rom"),
        "a guest that boots in seconds: the network card's own firmware",
    ),
    package(
        "passt",
        Probe::Program("passt"),
        "another network for the machine, fenced like QEMU's own",
    ),
    package(
        "samba",
        Probe::File("/usr/sbin/smbd"),
        "the file server that QEMU starts for its guest",
    ),
    package(
        "busybox-static",
        Probe::Installed,
        "the programs in the Linux guest",
    ),
    package(
        "g++",
        Probe::Program("c++"),
        "libFuzzer, which runs the fuzzers",
    ),
    package(
        "iproute2",
        Probe::Program("ip"),
        "the networks that the tests build",
    ),
    package(
        "nftables",
        Probe::Program("nft"),
        "address translation in those networks",
    ),
    package(
        "dnsmasq-base",
        Probe::Program("dnsmasq"),
        "the name server of those networks",
    ),
    package(
        "util-linux",
        Probe::Program("setpriv"),
        "running the machine as nobody where there is no fence",
    ),
    package(
        "bpftool",
        Probe::Program("bpftool"),
        "removing parts of a fence while it runs",
    ),
    // It depends on systemd, D-Bus and systemd's PAM module.
    package(
        "dbus-user-session",
        Probe::File("/usr/lib/systemd/user/dbus.socket"),
        "a real systemd with its buses, which takes processes out of their cgroup",
    ),
    package(
        "strace",
        Probe::Program("strace"),
        "killing qfence at each of its steps",
    ),
    package(
        "sudo",
        Probe::Program("sudo"),
        "running qfence as root from an unprivileged session",
    ),
    package(
        "opendoas",
        Probe::Program("doas"),
        "another program that runs qfence as root for a user",
    ),
    package(
        "pkexec",
        Probe::Program("pkexec"),
        "another program that runs qfence as root for a user",
    ),
    package(
        "polkitd",
        Probe::File("/usr/lib/polkit-1/polkitd"),
        "permits that, for pkexec",
    ),
    package(
        "git",
        Probe::Program("git"),
        "clones in a fence with rules by name",
    ),
    package(
        "python3-pip",
        Probe::File("/usr/bin/pip3"),
        "downloads in a fence with rules by name",
    ),
    // Some packages of Node.js have npm, which Debian's does not: it needs 356 further packages.
    package(
        "npm",
        Probe::Program("npm"),
        "downloads in a fence with rules by name",
    ),
    package(
        "openssl",
        Probe::Program("openssl"),
        "makes the certificates of the servers from which they download",
    ),
];

/// The packages with which the machine of `vm` is made, besides [`TOOLS`].
const MACHINE: &[Package] = &[
    package(
        "mmdebstrap",
        Probe::Program("mmdebstrap"),
        "makes the machine from Debian's packages",
    ),
    package(
        "debian-archive-keyring",
        Probe::File("/usr/share/keyrings/debian-archive-keyring.gpg"),
        "the keys that sign those packages",
    ),
    package(
        "e2fsprogs",
        Probe::Program("mke2fs"),
        "makes the machine's disk",
    ),
    package(
        "kmod",
        Probe::Program("depmod"),
        "finds the modules that another kernel of the machine boots with",
    ),
    package(
        "cpio",
        Probe::Program("cpio"),
        "makes the initramfs of such a kernel",
    ),
    package(
        "xz-utils",
        Probe::Program("xzcat"),
        "unpacks modules of such a kernel",
    ),
    package(
        "zstd",
        Probe::Program("zstdcat"),
        "unpacks modules of such a kernel",
    ),
];

/// The program that runs a machine of another architecture, besides [`MACHINE`].
const AARCH64_MACHINE: &[Package] = &[package(
    "qemu-system-arm",
    Probe::Program("qemu-system-aarch64"),
    "the aarch64 machine",
)];

/// What builds programs for aarch64 on another machine.
const AARCH64_COMPILER: &[Package] = &[
    package(
        "gcc-aarch64-linux-gnu",
        Probe::Program("aarch64-linux-gnu-gcc"),
        "links programs for aarch64",
    ),
    package(
        "libc6-dev-arm64-cross",
        Probe::File("/usr/aarch64-linux-gnu/lib/libc.a"),
        "the C library of those programs",
    ),
];

/// The programs that `session` runs inside and outside of a fence, besides [`TOOLS`].
const SESSION: &[Package] = &[package(
    "curl",
    Probe::Program("curl"),
    "fetches pages in the picture of a session",
)];

/// The programs that benchmarks compare qfence with. One that cannot be installed is left out, which the benchmark
/// reports.
const COMPETITORS: &[Package] = &[
    package(
        "bubblewrap",
        Probe::Program("bwrap"),
        "starts a command in namespaces, to compare starts with",
    ),
    package(
        "firejail",
        Probe::Program("firejail"),
        "starts a command in a sandbox, to compare starts with",
    ),
    package(
        "iptables",
        Probe::Program("iptables"),
        "judges packets by rules, to compare verdicts with",
    ),
];

/// The programs that make packages.
const PACKAGERS: &[Package] = &[
    package(
        "dpkg",
        Probe::Program("dpkg-deb"),
        "makes the Debian package",
    ),
    package("rpm", Probe::Program("rpmbuild"), "makes the RPM"),
];

const fn package(name: &'static str, probe: Probe, reason: &'static str) -> Package {
    Package {
        name,
        probe,
        reason,
    }
}

/// The packages that are missing on this machine.
pub(crate) fn missing(compiler_is_there: bool) -> Vec<&'static Package> {
    missing_of(compiler_is_there, |package| {
        package.probe.is_there(package.name)
    })
}

/// The packages that the machine of `vm` needs, in this architecture, and that are missing here.
pub(crate) fn missing_for_vm(arch: Arch) -> Vec<&'static Package> {
    let mut missing = missing_in(MACHINE);
    if arch == Arch::Aarch64 {
        missing.extend(missing_in(AARCH64_MACHINE));
    }
    missing
}

/// The packages that are missing here to build for aarch64 on another machine.
pub(crate) fn missing_for_aarch64() -> Vec<&'static Package> {
    missing_in(AARCH64_COMPILER)
}

/// The packages that `session` needs and that are missing here.
pub(crate) fn missing_for_session() -> Vec<&'static Package> {
    missing_in(SESSION)
}

/// The packages that `package` needs and that are missing here.
pub(crate) fn missing_for_packages() -> Vec<&'static Package> {
    missing_in(PACKAGERS)
}

/// The packages that benchmarks compare qfence with and that are missing here.
pub(crate) fn missing_for_bench() -> Vec<&'static Package> {
    missing_in(COMPETITORS)
}

fn missing_in(packages: &'static [Package]) -> Vec<&'static Package> {
    let is_missing = |package: &&Package| !package.probe.is_there(package.name);
    packages.iter().filter(is_missing).collect()
}

fn missing_of(
    compiler_is_there: bool,
    is_there: impl Fn(&Package) -> bool,
) -> Vec<&'static Package> {
    let compiler = if compiler_is_there { &[] } else { COMPILER };
    compiler
        .iter()
        .chain(TOOLS)
        .filter(|package| !is_there(package))
        .collect()
}

impl Probe {
    fn is_there(&self, package: &str) -> bool {
        match self {
            Self::Installed => is_installed(package),
            Self::Program(name) => has_program(name),
            Self::File(path) => Path::new(path).exists(),
        }
    }
}

fn is_installed(package: &str) -> bool {
    let mut query = shell::program("dpkg-query");
    query.args(["--show", "--showformat=${db:Status-Status}", package]);
    shell::output(&mut query).is_ok_and(|status| status == "installed")
}

/// Whether a program is on the PATH or in an sbin directory.
pub(crate) fn has_program(name: &str) -> bool {
    path_of(name).is_some()
}

/// The path of a program that is on the PATH or in an sbin directory, which a user's PATH often lacks.
pub(crate) fn path_of(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(Into::into))
        .map(|dir| dir.join(name))
        .find(|program| program.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(packages: &[&Package]) -> Vec<&'static str> {
        packages.iter().map(|package| package.name).collect()
    }

    #[test]
    fn only_what_is_not_there_is_missing() {
        let missing = missing_of(false, |package| package.name != "dnsmasq-base");
        assert_eq!(names(&missing), ["dnsmasq-base"]);
    }

    #[test]
    fn another_compiler_makes_debians_superfluous() {
        let with = names(&missing_of(true, |_| false));
        let without = names(&missing_of(false, |_| false));
        assert!(!with.contains(&"rustc-web"));
        assert_eq!(without[..2], ["rustc-web", "libstd-rust-web-dev-bpf"]);
        assert_eq!(without[2..], with);
    }

    #[test]
    fn every_package_is_listed_once_and_says_why() {
        let mut all = names(&missing_of(false, |_| false));
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count);
        assert!(
            COMPILER
                .iter()
                .chain(TOOLS)
                .all(|package| !package.reason.is_empty())
        );
    }

    #[test]
    fn a_program_is_found_by_its_name() {
        assert!(has_program("sh"));
        assert!(!has_program("no-such-program"));
    }
}

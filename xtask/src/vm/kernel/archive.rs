//! Kernels of other suites of Debian: apt with lists of its own finds and downloads them, and installs nothing.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};

use super::{super::sources::Archives, Kernel};
use crate::{arch::Arch, report, shell};

/// The package that depends on the newest kernel of a suite, without drivers of hardware.
fn package(arch: Arch) -> String {
    format!("linux-image-cloud-{}", arch.debian())
}

/// The packages of a kernel. Which of them has the kernel, the modules, and the list of modules that are part of the kernel
/// differs between suites.
const PARTS: [&str; 4] = [
    "linux-image-",
    "linux-binary-",
    "linux-modules-",
    "linux-base-",
];

/// A kernel that a suite has.
#[derive(Debug)]
pub(super) struct Found {
    /// The version of the package.
    pub(super) version: String,
    /// The suite.
    pub(super) suite: &'static str,
    lists: Lists,
}

/// The lists of one suite, in a directory of their own.
#[derive(Debug)]
struct Lists {
    dir: PathBuf,
    arch: Arch,
}

/// Asks all suites for a kernel, and returns the one with the highest version. The lists are below `dir`.
pub(super) fn find(arch: Arch, kernel: Kernel, dir: &Path) -> Result<Found> {
    let archives = Archives::of_apt()?;
    let mut best: Option<Found> = None;
    let mut reasons = Vec::new();
    for (label, suite) in kernel.suites(arch) {
        let found = match archives.line(label, suite) {
            Some(line) => find_in(kernel, suite, Lists::new(arch, dir.join(suite), &line)?),
            None => Err(anyhow::anyhow!("this machine's apt has no archive {label}")),
        };
        match found {
            Ok(found) => {
                if best.as_ref().is_none_or(|best| is_higher(&found, best)) {
                    best = Some(found);
                }
            }
            Err(error) => reasons.push(format!("{suite}: {error:#}")),
        }
    }
    best.with_context(|| {
        format!(
            "no suite has the kernel {}: {}",
            kernel.name(),
            reasons.join("; ")
        )
    })
}

fn find_in(kernel: Kernel, suite: &'static str, lists: Lists) -> Result<Found> {
    report::step(
        &format!("the package lists of {suite}"),
        lists.apt("apt-get").arg("update"),
    )?;
    let mut show = lists.apt("apt-cache");
    let package = package(lists.arch);
    let shown = shell::output(show.args(["show", "--no-all-versions", &package]))?;
    let version = field(&shown, "Version").with_context(|| format!("it has no {package}"))?;
    ensure!(
        kernel.has(version),
        "its kernel is {version}, and not {}",
        kernel.name()
    );
    Ok(Found {
        version: version.to_owned(),
        suite,
        lists,
    })
}

fn is_higher(one: &Found, another: &Found) -> bool {
    let mut dpkg = shell::program("dpkg");
    dpkg.args(["--compare-versions", &one.version, "gt", &another.version]);
    shell::succeeds(&mut dpkg)
}

impl Found {
    /// Downloads the packages of the kernel, and unpacks them to `root`.
    pub(super) fn unpack(&self, root: &Path) -> Result<()> {
        let packages = self.packages()?;
        let dir = tempfile::tempdir_in(&self.lists.dir)?;
        let mut download = self.lists.apt("apt-get");
        download.arg("download").args(&packages);
        report::step(
            &format!("the kernel {} of {}", self.version, self.suite),
            download.current_dir(dir.path()),
        )?;
        for file in fs::read_dir(dir.path())? {
            let mut unpack = shell::program("dpkg-deb");
            unpack.arg("--extract").arg(file?.path()).arg(root);
            shell::output(&mut unpack)?;
        }
        Ok(())
    }

    /// The names of the packages of the kernel.
    fn packages(&self) -> Result<Vec<String>> {
        let mut depends = self.lists.apt("apt-cache");
        depends.args(["depends", "--recurse", "--no-recommends", "--no-suggests"]);
        depends.args(["--no-breaks", "--no-conflicts", "--no-replaces"]);
        let package = package(self.lists.arch);
        depends.args(["--no-enhances", &package]);
        let packages = parts(&shell::output(&mut depends)?);
        if packages.is_empty() {
            bail!("{package} of {} depends on no kernel", self.suite);
        }
        Ok(packages)
    }
}

/// The packages of a kernel among the output of `apt-cache depends --recurse`. The name of a kernel's package has its
/// version; that of a package that depends on the newest has not.
fn parts(depends: &str) -> Vec<String> {
    let is_part = |name: &&str| {
        PARTS.iter().any(|part| {
            let version = name.strip_prefix(part);
            version.is_some_and(|version| version.starts_with(|first: char| first.is_ascii_digit()))
        })
    };
    depends.lines().filter(is_part).map(str::to_owned).collect()
}

/// The value of a field in a package's description.
fn field<'a>(shown: &'a str, name: &str) -> Option<&'a str> {
    shown
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

impl Lists {
    /// Makes the directory of a suite. `line` is that of its `sources.list`.
    fn new(arch: Arch, dir: PathBuf, line: &str) -> Result<Self> {
        let context = || format!("writing {}", dir.display());
        for below in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(dir.join(below)).with_context(context)?;
        }
        fs::write(dir.join("sources.list"), line).with_context(context)?;
        // Nothing is installed.
        fs::write(dir.join("status"), "").with_context(context)?;
        Ok(Self { dir, arch })
    }

    /// A program of apt that uses these lists alone.
    fn apt(&self, program: &str) -> Command {
        let mut command = shell::program(program);
        for (option, below) in [
            ("Dir::Etc::sourcelist", "sources.list"),
            ("Dir::State::lists", "lists"),
            ("Dir::Cache", "cache"),
            ("Dir::State::status", "status"),
        ] {
            let path = self.dir.join(below);
            command
                .arg("-o")
                .arg(format!("{option}={}", path.display()));
        }
        for option in [
            "Dir::Etc::sourceparts=-",
            &format!("APT::Architecture={}", self.arch.debian()),
            &format!("APT::Architectures={}", self.arch.debian()),
            // The user of apt's own downloads cannot write here.
            "APT::Sandbox::User=",
            "Acquire::Languages=none",
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false",
        ] {
            command.args(["-o", option]);
        }
        command
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_packages_of_a_kernel_have_its_version() {
        let depends = "linux-image-cloud-amd64\n  Depends: linux-base-cloud-amd64\n\
            linux-image-7.3.4+deb13-cloud-amd64\nlinux-modules-cloud-amd64\nlinux-base\n\
            linux-base-7.3.4+deb13-cloud-amd64\nlinux-binary-7.3.4+deb13-cloud-amd64\nlinux-modules-7.3.4+deb13-cloud-amd64\nkmod\n";
        assert_eq!(
            parts(depends),
            [
                "linux-image-7.3.4+deb13-cloud-amd64",
                "linux-base-7.3.4+deb13-cloud-amd64",
                "linux-binary-7.3.4+deb13-cloud-amd64",
                "linux-modules-7.3.4+deb13-cloud-amd64"
            ]
        );
        assert!(parts("kmod\n").is_empty());
    }

    #[test]
    fn the_version_is_that_of_the_package() {
        let shown = "Package: linux-image-cloud-amd64\nVersion: 5.10.262-1\nDepends: x\n";
        assert_eq!(field(shown, "Version"), Some("5.10.262-1"));
        assert_eq!(field("", "Version"), None);
    }
}

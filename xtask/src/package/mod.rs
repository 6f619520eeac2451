//! `package`: makes a Debian package, an RPM and an archive with a script that installs it, in target/dist.
//!
//! | file | job |
//! |---|---|
//! | `mod.rs` | the order |
//! | [`needs`] | the libraries that the programs need, and the oldest C library |
//! | [`deb`], [`rpm`], [`archive`] | a package each |
//! | [`check`] | whether two checkouts give the same bytes |

pub(crate) mod archive;
pub(crate) mod check;
mod deb;
mod needs;
mod rpm;

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use needs::Needs;

use crate::{
    build::Profile,
    commit::{self, Commit},
    installed::{
        made::{self, sha256},
        stage,
    },
    packages, report, setup, shell, workspace,
};

/// The version of qfence.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The summary in packages.
const SUMMARY: &str = "runs commands and QEMU guests without access to their host";

/// The description in packages, in lines.
const DESCRIPTION: [&str; 5] = [
    "QEMU's default networking opens a guest's connections from the QEMU process,",
    "so a guest that has the internet can also reach every open port of its host.",
    "qfence runs QEMU, or any other command, in a cgroup with eBPF programs that",
    "refuse every address of the host. The internet, the host's DNS and port",
    "forwarding keep working. Each attempt that is denied is recorded.",
];

/// Refuses the removal of qfence while there are fences. Everything that removes qfence runs it, with the path of qfence-user
/// in the variable `qfence`.
pub(crate) const BEFORE_REMOVAL: &str = include_str!("before-removal.sh");

/// Makes systemd and the file system ready.
const AFTER_INSTALLATION: &str = include_str!("after-installation.sh");

/// Removes what qfence made while it ran.
pub(crate) const AFTER_REMOVAL: &str = include_str!("after-removal.sh");

/// What the packages of distributions run before they remove anything.
fn before_removal() -> String {
    format!("qfence=/usr/bin/qfence-user\n{BEFORE_REMOVAL}")
}

/// The directory of files on the way to packages.
pub(crate) fn work() -> Result<PathBuf> {
    let dir = workspace::target().join("package");
    fs::create_dir_all(&dir).with_context(|| format!("creating {}", dir.display()))?;
    Ok(dir)
}

/// The directory of packages.
pub(crate) fn dist() -> PathBuf {
    workspace::target().join("dist")
}

/// Makes all packages, and a file with their checksums. Returns their paths.
pub(crate) fn package(profile: Profile) -> Result<Vec<PathBuf>> {
    report::heading("set up");
    setup::setup()?;
    install_tools()?;
    let commit = commit::current()?;
    let work = work()?;
    let mut made = made::make(&work, profile, &commit)?;
    made.sbom = Some(made::sbom(&work, &commit)?);
    report::heading("package");
    let needs = Needs::of(&[&made.program, &made.program.with_file_name("qfence-verify")])?;
    report::note(&format!("    {needs}"));
    needs.check()?;
    let dist = dist();
    if dist.exists() {
        fs::remove_dir_all(&dist).with_context(|| format!("removing {}", dist.display()))?;
    }
    fs::create_dir_all(&dist).with_context(|| format!("creating {}", dist.display()))?;
    let mut packages = vec![
        deb::make(&work, &dist, &made, &needs, &commit, deb::SMALL)?,
        rpm::make(&work, &dist, &made, &needs, &commit)?,
        archive::make(&work, &dist, &made, &commit)?,
    ];
    if let Some(sbom) = &made.sbom {
        let copy = dist.join(format!("qfence-{VERSION}.cdx.json"));
        fs::copy(sbom, &copy).with_context(|| format!("writing {}", copy.display()))?;
        packages.push(copy);
    }
    let sums = dist.join("SHA256SUMS");
    fs::write(&sums, checksums(&packages)?)
        .with_context(|| format!("writing {}", sums.display()))?;
    packages.push(sums);
    for package in &packages {
        report::note(&format!("    {}", package.display()));
    }
    Ok(packages)
}

/// Makes the Debian package alone, without the SBOM, to try it. Returns its path.
pub(crate) fn debian(profile: Profile) -> Result<PathBuf> {
    let commit = commit::current()?;
    let work = work()?;
    let made = made::make(&work, profile, &commit)?;
    let needs = Needs::of(&[&made.program, &made.program.with_file_name("qfence-verify")])?;
    deb::make(&work, &work, &made, &needs, &commit, deb::QUICK)
}

/// As sha256sum writes and checks them.
fn checksums(files: &[PathBuf]) -> Result<String> {
    let line = |file: &PathBuf| {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        Ok(format!("{}  {name}\n", sha256(file)?))
    };
    files.iter().map(line).collect()
}

fn install_tools() -> Result<()> {
    setup::install("for packages", &packages::missing_for_packages())
}

/// Runs a program that makes a package, and returns the package.
fn run(command: &mut std::process::Command, commit: &Commit, package: PathBuf) -> Result<PathBuf> {
    command
        .env("SOURCE_DATE_EPOCH", commit.date.to_string())
        .env("LC_ALL", "C.UTF-8")
        .env("TZ", "UTC");
    shell::output(command)?;
    ensure!(
        package.exists(),
        "{} made no {}",
        shell::describe(command),
        package.display()
    );
    Ok(package)
}

/// A directory for the files of a package, as [`stage::write_tree`] fills it.
fn tree(
    work: &Path,
    name: &str,
    rows: &[crate::installed::Row],
    commit: &Commit,
) -> Result<PathBuf> {
    let root = work.join(name);
    stage::write_tree(rows, &root, Path::new("/usr"), commit.date)?;
    Ok(root)
}

#[cfg(test)]
mod tests;

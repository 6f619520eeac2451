//! Installs Debian packages and never removes one.

use std::{process::Command, sync::OnceLock};

use anyhow::{Context as _, Result, anyhow, bail};

use crate::{packages, report, shell};

/// Installs the packages of these names.
pub(crate) fn install(names: &[&str]) -> Result<()> {
    let list = names.join(" ");
    if !packages::has_program("apt-get") {
        bail!(
            "apt-get is missing; install these Debian packages or their equivalents on your system, \
             then try again:\n    {list}"
        );
    }
    if !shell::is_root() {
        // Asks for the password here: later a spinner would overwrite the prompt.
        shell::run(shell::program("sudo").arg("--validate")).with_context(|| {
            format!(
                "installing needs root: run\n    apt-get install {list}\nas root, then try again"
            )
        })?;
    }
    update()?;
    let earlier = instead_of_removals(names)?;
    for package in &earlier {
        report::note(&format!(
            "    {package}: another version, which fits the packages that are installed"
        ));
    }
    report::step(
        "installing the packages",
        apt_get()
            .args(["install", "--yes", "--no-install-recommends", "--no-remove"])
            .args((!earlier.is_empty()).then_some(DOWNGRADES))
            .args(names)
            .args(&earlier),
    )
}

/// Updates the package lists, once per run of xtask.
fn update() -> Result<()> {
    static UPDATED: OnceLock<Result<(), String>> = OnceLock::new();
    let updated = UPDATED.get_or_init(|| {
        report::step("reading the package lists", apt_get().arg("update"))
            .map_err(|error| format!("{error:#}"))
    });
    updated.clone().map_err(|error| anyhow!(error))
}

/// With `--yes`, apt-get refuses to install an earlier version unless this option is given.
const DOWNGRADES: &str = "--allow-downgrades";

/// Finds further packages to install so that apt-get removes nothing: the archive's version of packages that conflict
/// only by their version, as qemu-utils of backports does with the release's own QEMU.
///
/// # Errors
/// If the conflict does not depend on the version, as between Debian's rustc-web and rustup: a set-up must not remove
/// packages that the user may need.
fn instead_of_removals(names: &[&str]) -> Result<Vec<String>> {
    let removals = simulate(names, &[])?;
    if removals.is_empty() {
        return Ok(Vec::new());
    }
    let earlier = removals
        .iter()
        .filter_map(|name| archive_version(name).transpose())
        .collect::<Result<Vec<_>>>()?;
    if earlier.len() == removals.len() && simulate(names, &earlier)?.is_empty() {
        return Ok(earlier);
    }
    bail!(
        "nothing was installed: to install {}, apt-get would remove {}; remove these yourself, \
         or, if the compiler conflicts, use rustup's:\n    \
         rustup toolchain install nightly --component rust-src\n    \
         cargo xtask setup",
        names.join(", "),
        removals.join(", ")
    )
}

/// The packages that apt-get would remove to install these.
fn simulate(names: &[&str], earlier: &[String]) -> Result<Vec<String>> {
    let mut simulate = shell::program("apt-get");
    simulate
        .env("LC_ALL", "C")
        .args(["install", "--simulate", "--no-install-recommends"])
        .args((!earlier.is_empty()).then_some(DOWNGRADES))
        .args(names)
        .args(earlier);
    let simulation = shell::output(&mut simulate).context("simulating apt-get install")?;
    Ok(removals(&simulation).into_iter().map(Into::into).collect())
}

/// A package in the highest version of the archive, in the syntax of apt-get: `name=version`.
fn archive_version(name: &str) -> Result<Option<String>> {
    let mut madison = shell::program("apt-cache");
    let versions = shell::output(madison.args(["madison", name]))
        .with_context(|| format!("asking apt-cache for the versions of {name}"))?;
    Ok(first_version(&versions).map(|version| format!("{name}={version}")))
}

/// The first version in a table of apt-cache's `madison`: the highest.
fn first_version(madison: &str) -> Option<&str> {
    madison.lines().next()?.split('|').nth(1).map(str::trim)
}

/// The packages that a simulated run of apt-get would remove.
fn removals(simulation: &str) -> Vec<&str> {
    simulation
        .lines()
        .filter_map(|line| line.strip_prefix("Remv ")?.split_whitespace().next())
        .collect()
}

fn apt_get() -> Command {
    let mut command = shell::as_root("env");
    // Set by `env`: sudo drops the variable, and may refuse to set it.
    command.args(["DEBIAN_FRONTEND=noninteractive", "apt-get"]);
    command
}

#[cfg(test)]
mod tests {
    use super::{first_version, removals};

    #[test]
    fn removals_are_named() {
        let simulation = "Reading package lists...\n\
            The following packages will be REMOVED:\n  rustup\n\
            Remv rustup [1.27.1-3+b1] [rust-doc:amd64 ]\n\
            Remv cargo [1.85.0+dfsg3-1]\n\
            Inst rustc-web (1.96.0+dfsg1-1~deb12u2 Debian-Security:12/oldstable [amd64])\n\
            Conf rustc-web (1.96.0+dfsg1-1~deb12u2 Debian-Security:12/oldstable [amd64])\n";
        assert_eq!(removals(simulation), ["rustup", "cargo"]);
    }

    #[test]
    fn an_installation_removes_nothing() {
        let simulation = "Inst sudo (1.9.13p3-1+deb12u4 Debian:12.15/oldstable [amd64])\n\
            Conf sudo (1.9.13p3-1+deb12u4 Debian:12.15/oldstable [amd64])\n";
        assert!(removals(simulation).is_empty());
    }

    #[test]
    fn the_archives_version_is_the_first_that_is_listed() {
        let madison = "qemu-utils | 1:7.2+dfsg-7+deb12u18+b3 | file:/archive bookworm/main amd64 Packages\n\
            qemu-utils | 1:7.2+dfsg-7+deb12u15 | file:/archive bookworm-security/main amd64 Packages\n";
        assert_eq!(first_version(madison), Some("1:7.2+dfsg-7+deb12u18+b3"));
        assert_eq!(first_version(""), None);
    }
}

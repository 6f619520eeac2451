//! Installs Debian packages, without ever removing one.

use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::{packages, report, shell};

/// Installs the packages of these names.
pub(crate) fn install(names: &[&str]) -> Result<()> {
    let list = names.join(" ");
    if !packages::has_program("apt-get") {
        bail!(
            "there is no apt-get here; install these Debian packages, or what your system has in \
             their place, then try again:\n    {list}"
        );
    }
    if !shell::is_root() {
        // Asks for the password here, where no spinner writes over the question.
        shell::run(shell::program("sudo").arg("--validate")).with_context(|| {
            format!(
                "installing needs root: run\n    apt-get install {list}\nas root, then try again"
            )
        })?;
    }
    report::step("reading the package lists", apt_get().arg("update"))?;
    refuse_removals(names)?;
    report::step(
        "installing the packages",
        apt_get()
            .args(["install", "--yes", "--no-install-recommends", "--no-remove"])
            .args(names),
    )
}

/// Debian's rustc-web and its rustup conflict, for one: to remove what somebody else works with is
/// not for a set-up to decide.
fn refuse_removals(names: &[&str]) -> Result<()> {
    let mut simulate = shell::program("apt-get");
    simulate
        .env("LC_ALL", "C")
        .args(["install", "--simulate", "--no-install-recommends"]);
    let simulation =
        shell::output(simulate.args(names)).context("asking apt-get what it would do")?;
    let removals = removals(&simulation);
    if removals.is_empty() {
        return Ok(());
    }
    bail!(
        "to install {} apt-get would remove {}, so nothing was installed; remove those yourself, \
         or, if it is the compiler that is in conflict, use rustup's:\n    \
         rustup toolchain install nightly --component rust-src\n    \
         cargo xtask setup",
        names.join(", "),
        removals.join(", ")
    )
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
    // Through `env`: sudo drops the variable, and may refuse to be given it.
    command.args(["DEBIAN_FRONTEND=noninteractive", "apt-get"]);
    command
}

#[cfg(test)]
mod tests {
    use super::removals;

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
}

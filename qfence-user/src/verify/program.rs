//! Finds the executable `qfence-verify`, and checks that it is of the same build as the `qfence-user` that runs it.
//!
//! `qfence-user` uses only this module and [`short`](super::short); the rest of the room is linked into
//! `qfence-verify`.

use std::{
    env, fs,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

use crate::{base::version, kernel};

/// The name of the file, which is in the directory of `qfence-user`.
const NAME: &str = "qfence-verify";

/// The name of the file of `qfence-user`.
const LAUNCHER: &str = "qfence-user";

/// A command that runs `qfence-verify` for this build. The caller adds options.
///
/// # Errors
/// If the file does not exist, or if its owner is neither root nor the owner of this program.
pub fn command() -> Result<Command> {
    let own = env::current_exe().context("cannot find the file of this program")?;
    let mut command = Command::new(beside(&own, NAME)?);
    command.arg("--build").arg(build());
    Ok(command)
}

/// The path of `qfence-user`, for `qfence-verify`, which is in the same directory.
///
/// # Errors
/// As [`command`].
pub fn launcher() -> Result<PathBuf> {
    let own = env::current_exe().context("cannot find the file of this program")?;
    beside(&own, LAUNCHER)
}

/// Returns the path of a program in the directory of `own`, if root may execute it.
fn beside(own: &Path, name: &str) -> Result<PathBuf> {
    let program = own.with_file_name(name);
    // The owner of a symbolic link can change it, so the owner of the link itself is checked.
    let found = fs::symlink_metadata(&program).with_context(|| {
        format!(
            "cannot find {}, {}: `cargo xtask install` installs both",
            program.display(),
            match name {
                NAME => "the program that makes the probes and is installed beside qfence-user",
                _ => "which is installed beside qfence-verify",
            }
        )
    })?;
    // In a directory such as /tmp every user can put a file beside this program.
    let owner = found.uid();
    let is_trusted = owner == 0 || fs::metadata(own).is_ok_and(|own| own.uid() == owner);
    ensure!(
        is_trusted,
        "{} belongs to the user {owner}, and not to root or the owner of {}: root does not execute it",
        program.display(),
        own.file_name().unwrap_or_default().display()
    );
    Ok(program)
}

/// Identifies builds whose fences could differ: version, ABI, and the eBPF programs.
fn build() -> String {
    let mut hasher = DefaultHasher::new();
    kernel::OBJECT.hash(&mut hasher);
    let (version, abi) = (env!("CARGO_PKG_VERSION"), version::abi());
    format!("{version}-{abi}-{:016x}", hasher.finish())
}

/// Checks that the calling `qfence-user` is of the same build as this program, and so makes the same fences.
///
/// # Errors
/// If it is of another build: the result would not apply to its fences.
pub fn check(other: &str) -> Result<()> {
    let own = build();
    ensure!(
        other == own,
        "qfence-user is of another build ({other}) than {NAME} ({own}), so nothing would be shown of its fences: \
         `cargo xtask install` installs both"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use nix::unistd::{Uid, chown, geteuid};

    use super::*;

    #[test]
    fn it_is_found_in_the_directory_of_the_program() {
        let dir = tempfile::tempdir().unwrap();
        let own = dir.path().join("qfence-user");
        fs::write(&own, "").unwrap();
        let missing = format!("{:#}", beside(&own, NAME).unwrap_err());
        let program = dir.path().join(NAME);
        let start = format!("cannot find {}, ", program.display());
        assert!(missing.starts_with(&start), "{missing}");
        assert!(missing.contains("`cargo xtask install`"), "{missing}");
        fs::write(&program, "").unwrap();
        assert_eq!(beside(&own, NAME).unwrap(), program);
        if !geteuid().is_root() {
            return;
        }
        chown(&program, Some(Uid::from_raw(65534)), None).unwrap();
        let foreign = beside(&own, NAME).unwrap_err().to_string();
        assert!(foreign.contains("belongs to the user 65534"), "{foreign}");
        chown(&own, Some(Uid::from_raw(65534)), None).unwrap();
        assert_eq!(beside(&own, NAME).unwrap(), program, "the owner of both");
    }

    #[test]
    fn another_build_is_not_verified() {
        check(&build()).unwrap();
        let error = check("0.0.9-1-0").unwrap_err().to_string();
        assert!(
            error.starts_with("qfence-user is of another build"),
            "{error}"
        );
    }
}

//! Paths in what is built: a program names its source files, in messages of panics and in the eBPF objects. So that two
//! checkouts give the same bytes, the compiler writes fixed names for directories that depend on the machine.

use std::{
    env,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use crate::{shell, workspace};

/// Options of rustc, for a compiler with that directory of libraries. Of two that match, rustc takes the last.
pub(crate) fn flags(sysroot: &Path) -> Result<Vec<String>> {
    Ok(flags_for(sysroot, &cargo_home()?, workspace::root()))
}

fn flags_for(sysroot: &Path, cargo_home: &Path, workspace: &Path) -> Vec<String> {
    [
        (sysroot, "/rust"),
        (cargo_home, "/cargo"),
        (workspace, "/qfence"),
    ]
    .map(|(path, name)| format!("--remap-path-prefix={}={name}", path.display()))
    .into()
}

/// The directory of libraries of the compiler that builds the programs.
pub(crate) fn host_sysroot() -> Result<PathBuf> {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let mut ask = shell::program(rustc);
    ask.current_dir(workspace::root());
    Ok(shell::output(ask.args(["--print", "sysroot"]))?
        .trim_end()
        .into())
}

/// Where cargo keeps the sources of libraries.
pub(crate) fn cargo_home() -> Result<PathBuf> {
    if let Some(home) = env::var_os("CARGO_HOME") {
        return Ok(home.into());
    }
    let home = env::var_os("HOME").context("neither $CARGO_HOME nor $HOME is set")?;
    Ok(Path::new(&home).join(".cargo"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_workspace_comes_last_so_that_it_wins() {
        let flags = flags_for(
            Path::new("/lib/rust"),
            Path::new("/home/me/.cargo"),
            Path::new("/home/me"),
        );
        assert_eq!(
            flags,
            [
                "--remap-path-prefix=/lib/rust=/rust",
                "--remap-path-prefix=/home/me/.cargo=/cargo",
                "--remap-path-prefix=/home/me=/qfence"
            ]
        );
    }
}

//! The compiler for the eBPF object: any rustc that has a `core` library for eBPF, prebuilt or as source. The first of
//! these is used:
//!
//! 1. `$QFENCE_EBPF_OBJECT`: an object that was built elsewhere, with the others beside it; no compiler is needed,
//! 2. `$QFENCE_RUSTC`,
//! 3. rustup's nightly,
//! 4. `/usr/bin/rustc`.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use crate::shell;

/// The target of the object: little-endian eBPF.
pub(crate) const TARGET: &str = "bpfel-unknown-none";

/// The source of the eBPF object.
pub(crate) enum Source {
    /// A file that was built elsewhere.
    Object(PathBuf),
    /// The source code in this checkout, compiled by this compiler.
    Compiler(Compiler),
}

/// A rustc that can compile for eBPF.
#[derive(Debug)]
pub(crate) struct Compiler {
    /// The path of the executable.
    pub(crate) rustc: PathBuf,
    /// The directory of its libraries.
    pub(crate) sysroot: PathBuf,
    /// The form of its core library.
    pub(crate) core: Core,
    /// The major version of its LLVM.
    pub(crate) llvm: u32,
}

/// The form in which a compiler has the core library for eBPF.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Core {
    /// As a prebuilt library.
    Prebuilt,
    /// As source, for `-Zbuild-std`.
    Source,
}

/// Finds the source of the eBPF object; `None` if there is no compiler.
pub(crate) fn find() -> Result<Option<Source>> {
    if let Some(object) = env::var_os("QFENCE_EBPF_OBJECT") {
        return Ok(Some(Source::Object(object.into())));
    }
    if let Some(rustc) = env::var_os("QFENCE_RUSTC") {
        let rustc = PathBuf::from(rustc);
        let Some(compiler) = inspect(&rustc).context("looking at $QFENCE_RUSTC")? else {
            bail!(
                "{} ($QFENCE_RUSTC) has no core library for {TARGET}, neither prebuilt nor as \
                 source: install one, or unset the variable",
                rustc.display()
            );
        };
        return Ok(Some(Source::Compiler(compiler)));
    }
    for rustc in [rustup_nightly(), Some("/usr/bin/rustc".into())]
        .into_iter()
        .flatten()
    {
        if rustc.exists()
            && let Some(compiler) = inspect(&rustc)?
        {
            return Ok(Some(Source::Compiler(compiler)));
        }
    }
    Ok(None)
}

/// Finds the source of the eBPF object.
///
/// # Errors
/// If there is no compiler; the message names the commands that install one.
pub(crate) fn require() -> Result<Source> {
    find()?.with_context(|| {
        format!(
            "no rustc with a core library for {TARGET} was found (looked at $QFENCE_RUSTC, \
             rustup's nightly, /usr/bin/rustc); on Debian run\n    \
             cargo xtask setup\n\
             or, where rustup is in use,\n    \
             rustup toolchain install nightly --component rust-src\n    \
             cargo xtask setup"
        )
    })
}

/// The path of rustup's nightly rustc. The query does not install it.
fn rustup_nightly() -> Option<PathBuf> {
    let mut which = shell::program("rustup");
    which
        .args(["which", "--toolchain", "nightly", "rustc"])
        .env("RUSTUP_AUTO_INSTALL", "0");
    Some(shell::output(&mut which).ok()?.trim_end().into())
}

/// Examines a rustc; `None` if it has no core library for eBPF.
fn inspect(rustc: &Path) -> Result<Option<Compiler>> {
    let ask = |arg: &[&str]| shell::output(shell::program(rustc).args(arg));
    let sysroot = PathBuf::from(ask(&["--print", "sysroot"])?.trim_end());
    let Some(core) = core_in(&sysroot) else {
        return Ok(None);
    };
    let version = ask(&["-vV"])?;
    let llvm = llvm_major(&version)
        .with_context(|| format!("no LLVM version in the output of {} -vV", rustc.display()))?;
    Ok(Some(Compiler {
        rustc: rustc.to_owned(),
        sysroot,
        core,
        llvm,
    }))
}

/// The form of the core library in a sysroot, if there is one.
fn core_in(sysroot: &Path) -> Option<Core> {
    let rustlib = sysroot.join("lib/rustlib");
    let prebuilt = fs::read_dir(rustlib.join(TARGET).join("lib")).is_ok_and(|entries| {
        entries.flatten().any(|entry| {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            name.starts_with("libcore-") && name.ends_with(".rlib")
        })
    });
    if prebuilt {
        return Some(Core::Prebuilt);
    }
    // Cargo needs the lock file along with the source.
    rustlib
        .join("src/rust/library/Cargo.lock")
        .exists()
        .then_some(Core::Source)
}

/// The major number in the `LLVM version` line of `rustc -vV`.
fn llvm_major(version: &str) -> Option<u32> {
    let line = version
        .lines()
        .find_map(|line| line.strip_prefix("LLVM version: "))?;
    line.split('.').next()?.trim().parse().ok()
}

impl Compiler {
    /// Cargo with this compiler. To build the core library from source, it must be the cargo of the same toolchain.
    pub(crate) fn cargo(&self) -> Command {
        let beside = self.rustc.with_file_name("cargo");
        let mut cargo = match self.core {
            Core::Source if beside.exists() => shell::pristine_cargo(beside),
            Core::Source | Core::Prebuilt => shell::pristine_cargo(shell::host_cargo()),
        };
        cargo.env("RUSTC", &self.rustc);
        cargo
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn llvm_major_is_read_from_the_verbose_version() {
        let version = "rustc 1.96.0 (ac68faa20 2026-05-25)\nbinary: rustc\nrelease: 1.96.0\n\
                       LLVM version: 22.1.8\n";
        assert_eq!(llvm_major(version), Some(22));
    }

    #[test]
    fn a_version_without_llvm_has_no_major() {
        assert_eq!(llvm_major("rustc 1.96.0\nrelease: 1.96.0\n"), None);
        assert_eq!(llvm_major("LLVM version: unknown\n"), None);
    }

    #[test]
    fn a_prebuilt_core_is_preferred_to_its_source() {
        let sysroot = tempfile::tempdir().unwrap();
        assert_eq!(core_in(sysroot.path()), None);

        let library = sysroot.path().join("lib/rustlib/src/rust/library");
        fs::create_dir_all(&library).unwrap();
        assert_eq!(core_in(sysroot.path()), None);
        fs::write(library.join("Cargo.lock"), "").unwrap();
        assert_eq!(core_in(sysroot.path()), Some(Core::Source));

        let prebuilt = sysroot.path().join("lib/rustlib/bpfel-unknown-none/lib");
        fs::create_dir_all(&prebuilt).unwrap();
        fs::write(prebuilt.join("libcompiler_builtins-1.rlib"), "").unwrap();
        assert_eq!(core_in(sysroot.path()), Some(Core::Source));
        fs::write(prebuilt.join("libcore-1.rlib"), "").unwrap();
        assert_eq!(core_in(sysroot.path()), Some(Core::Prebuilt));
    }
}

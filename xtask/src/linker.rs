//! bpf-linker, built from source for this checkout against the libLLVM of the compiler whose output it reads. So the
//! versions are equal, and no LLVM development package is needed.

use std::{
    fs,
    ops::RangeInclusive,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

use crate::{report, shell, toolchain::Compiler, workspace};

/// The version of bpf-linker.
pub(crate) const VERSION: &str = "0.13.0";

/// The LLVM versions that it supports.
const LLVM: RangeInclusive<u32> = 21..=23;

/// The path of bpf-linker.
pub(crate) fn path() -> PathBuf {
    workspace::tools().join("bin/bpf-linker")
}

/// Whether the linker for that compiler is installed and runs.
pub(crate) fn is_ready(compiler: &Compiler) -> Result<bool> {
    let stamp = fs::read_to_string(stamp_path()).unwrap_or_default();
    Ok(stamp == stamp_of(&libllvm(compiler)?)
        && shell::succeeds(shell::program(path()).arg("--version")))
}

/// Builds the linker for that compiler.
pub(crate) fn install(compiler: &Compiler) -> Result<()> {
    if !LLVM.contains(&compiler.llvm) {
        bail!(
            "{} has LLVM {}, but bpf-linker {VERSION} is for LLVM {} to {}: name another compiler \
             in $QFENCE_RUSTC",
            compiler.rustc.display(),
            compiler.llvm,
            LLVM.start(),
            LLVM.end()
        );
    }
    let libllvm = libllvm(compiler)?;
    let prefix = workspace::tools().join("llvm");
    lay_out_prefix(&prefix, &libllvm)
        .with_context(|| format!("laying out {}", prefix.display()))?;

    let build_dir = workspace::tools().join("build");
    let mut cargo = shell::pristine_cargo(shell::host_cargo());
    cargo
        .args([
            "install",
            "bpf-linker",
            "--version",
            VERSION,
            "--locked",
            "--force",
        ])
        .args([
            "--no-default-features",
            "--features",
            &format!("llvm-{}", compiler.llvm),
        ])
        .arg("--root")
        .arg(workspace::tools())
        .arg("--target-dir")
        .arg(&build_dir)
        // The build also uses it as the rpath: the libLLVM of a rustup toolchain is in no directory of the loader.
        .env("LLVM_PREFIX", &prefix)
        // libLLVM does the work: without optimisation the linker links as fast, and is built in half the time.
        .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "0");
    report::step(&format!("building bpf-linker {VERSION}"), &mut cargo)?;

    let stamp = stamp_path();
    fs::write(&stamp, stamp_of(&libllvm))
        .with_context(|| format!("writing {}", stamp.display()))?;
    fs::remove_dir_all(&build_dir).with_context(|| format!("removing {}", build_dir.display()))
}

/// The file with the version of the linker and the libLLVM that it was built for.
fn stamp_path() -> PathBuf {
    workspace::tools().join("bpf-linker.stamp")
}

fn stamp_of(libllvm: &Path) -> String {
    format!("bpf-linker {VERSION} with {}\n", libllvm.display())
}

/// Makes a directory look like an installation of LLVM. The build of the linker needs only the library, by its link name
/// and by its load name.
fn lay_out_prefix(prefix: &Path, libllvm: &Path) -> Result<()> {
    let lib = prefix.join("lib");
    if lib.exists() {
        fs::remove_dir_all(&lib)?;
    }
    fs::create_dir_all(&lib)?;
    symlink(libllvm, lib.join("libLLVM.so"))?;
    symlink(
        libllvm,
        lib.join(libllvm.file_name().context("the library has no name")?),
    )?;
    Ok(())
}

/// The libLLVM of a compiler.
fn libllvm(compiler: &Compiler) -> Result<PathBuf> {
    let multiarch = format!("lib/{}-linux-gnu", std::env::consts::ARCH);
    for dir in ["lib", "lib64", &multiarch].map(|dir| compiler.sysroot.join(dir)) {
        let Ok(entries) = fs::read_dir(&dir) else {
            continue;
        };
        let names = entries
            .flatten()
            .filter_map(|entry| entry.file_name().into_string().ok());
        if let Some(name) = pick_libllvm(names, compiler.llvm) {
            return Ok(dir.join(name));
        }
    }
    bail!(
        "no libLLVM.so.{}.* in the lib directories of {}: {} seems to be linked statically with \
         LLVM; name another compiler in $QFENCE_RUSTC",
        compiler.llvm,
        compiler.sysroot.display(),
        compiler.rustc.display()
    )
}

/// The load name of the library of that major version: `libLLVM.so.22.1`, or `libLLVM.so.22.1-rust-1.95.0-stable`.
fn pick_libllvm(names: impl Iterator<Item = String>, major: u32) -> Option<String> {
    let prefix = format!("libLLVM.so.{major}.");
    names.filter(|name| name.starts_with(&prefix)).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pick(names: &[&str], major: u32) -> Option<String> {
        pick_libllvm(names.iter().map(|&name| name.to_owned()), major)
    }

    #[test]
    fn the_library_of_the_compilers_version_is_picked() {
        let debian = [
            "libLLVM-14.so.1",
            "libLLVM-22.so",
            "libLLVM.so.19.1",
            "libLLVM.so.22.1",
        ];
        assert_eq!(pick(&debian, 22).as_deref(), Some("libLLVM.so.22.1"));
        assert_eq!(pick(&debian, 2), None);

        let rustup = [
            "libLLVM-22-rust-1.95.0-stable.so",
            "libLLVM.so.22.1-rust-1.95.0-stable",
        ];
        assert_eq!(
            pick(&rustup, 22).as_deref(),
            Some("libLLVM.so.22.1-rust-1.95.0-stable")
        );
    }

    #[test]
    fn the_prefix_has_the_library_by_both_its_names() {
        let dir = tempfile::tempdir().unwrap();
        let library = dir.path().join("libLLVM.so.22.1");
        fs::write(&library, "a library").unwrap();
        let prefix = dir.path().join("llvm");
        for _twice in 0..2 {
            lay_out_prefix(&prefix, &library).unwrap();
        }
        for name in ["libLLVM.so", "libLLVM.so.22.1"] {
            let link = prefix.join("lib").join(name);
            assert_eq!(fs::read_to_string(link).unwrap(), "a library");
        }
    }
}

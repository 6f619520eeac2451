//! Builds the eBPF object.

use std::{env::consts::ARCH, fs, path::Path, process::Command, time::SystemTime};

use anyhow::{Context as _, Result, bail};

use crate::{
    linker, remap, report, shell, stack, strip,
    toolchain::{self, Compiler, Core, Source, TARGET},
    workspace,
};

/// Crates that use unstable features, because no stable feature exists for the eBPF target.
const UNSTABLE_CRATES: &str = "aya_ebpf,qfence_ebpf,local_in";

/// Global functions, which the verifier checks separately. The linker makes all others local to the object.
const GLOBAL_FUNCTIONS: [&str; 7] = [
    "qfence_extension",
    "qfence_flags",
    "qfence_payload",
    "qfence_refuse_call",
    "qfence_refuse_packet",
    "qfence_refuse_send",
    "qfence_verdict",
];

/// The separator of flags in `CARGO_ENCODED_RUSTFLAGS`.
const FLAG_SEPARATOR: &str = "\u{1f}";

/// A variant of the object.
#[derive(Clone, Copy)]
enum Variant {
    /// The programs of a fence.
    Plain,
    /// The same programs with traces of their decisions.
    Tracing,
    /// The program that the fences of a network namespace share.
    LocalIn,
}

impl Variant {
    const ALL: [Self; 3] = [Self::Plain, Self::Tracing, Self::LocalIn];

    /// The file name of the object. qfence-user's build script has the same names.
    fn file(self) -> &'static str {
        match self {
            Self::Plain => "qfence.o",
            Self::Tracing => "qfence-trace.o",
            Self::LocalIn => "qfence-local-in.o",
        }
    }

    /// The name of its binary target.
    fn binary(self) -> &'static str {
        match self {
            Self::Plain | Self::Tracing => "qfence-ebpf",
            Self::LocalIn => "local_in",
        }
    }

    fn features(self) -> &'static str {
        match self {
            Self::Plain | Self::LocalIn => "",
            Self::Tracing => "trace",
        }
    }
}

/// Brings the objects in `target/ebpf` up to date.
pub(crate) fn build() -> Result<()> {
    let source = toolchain::require()?;
    for variant in Variant::ALL {
        let started = SystemTime::now();
        let bytes = match &source {
            Source::Object(path) => {
                let path = path.with_file_name(match variant {
                    Variant::Plain => path.file_name().unwrap_or_default(),
                    Variant::Tracing | Variant::LocalIn => variant.file().as_ref(),
                });
                report::note(&format!("using the eBPF object {}", path.display()));
                fs::read(&path)
                    .with_context(|| format!("reading {} ($QFENCE_EBPF_OBJECT)", path.display()))?
            }
            Source::Compiler(compiler) => compile(compiler, variant)?,
        };
        stack::check(&bytes).with_context(|| format!("checking {}", variant.file()))?;
        let object = workspace::ebpf_objects().join(variant.file());
        refresh(&object, &bytes, started)
            .with_context(|| format!("writing {}", object.display()))?;
    }
    Ok(())
}

fn compile(compiler: &Compiler, variant: Variant) -> Result<Vec<u8>> {
    if !linker::is_ready(compiler)? {
        bail!(
            "bpf-linker for {} is missing: run `cargo xtask setup`",
            compiler.rustc.display()
        );
    }
    let mut flags = vec![
        bpf_target_arch()?,
        "-Cdebuginfo=2".into(),
        "-Clink-arg=--btf".into(),
        // The version of the instruction set. Linux 5.10 has it.
        "-Ctarget-cpu=v3".into(),
        // Without this, zeroing an array calls a function that writes it byte by byte.
        "-Clink-arg=--disable-expand-memcpy-in-order".into(),
        format!("-Clink-arg=--export={}", GLOBAL_FUNCTIONS.join(",")),
    ];
    // BTF has the names of source files.
    flags.extend(remap::flags(&compiler.sysroot)?);
    let target_dir = workspace::target().join("ebpf");
    let mut cargo = compiler.cargo();
    cargo
        .args([
            "build",
            "--release",
            "--package",
            "qfence-ebpf",
            "--bin",
            variant.binary(),
            "--target",
            TARGET,
            "--features",
            variant.features(),
        ])
        .arg("--target-dir")
        .arg(&target_dir)
        // The programs are optimised for speed, not size. LTO is not needed: bpf-linker links the whole object at once.
        .envs([
            ("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16"),
            ("CARGO_PROFILE_RELEASE_LTO", "false"),
            ("CARGO_PROFILE_RELEASE_OPT_LEVEL", "3"),
        ])
        .env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", linker::path())
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join(FLAG_SEPARATOR));
    match compiler.core {
        Core::Prebuilt => cargo.env("RUSTC_BOOTSTRAP", UNSTABLE_CRATES),
        // Cargo's unstable option needs the permission for all crates.
        Core::Source => cargo.arg("-Zbuild-std=core").env("RUSTC_BOOTSTRAP", "1"),
    };
    shell::run(&mut cargo)?;

    let linked = target_dir
        .join(TARGET)
        .join("release")
        .join(variant.binary());
    let bytes = fs::read(&linked).with_context(|| format!("reading {}", linked.display()))?;
    strip::without_debug_info(&bytes).with_context(|| format!("stripping {}", linked.display()))
}

/// The commands that run clippy on the eBPF crate, one for each set of features: each looks at all objects. The target is
/// the host's: clippy's compiler has no core library for eBPF, and nothing is linked. Panics abort, as on the eBPF target: a
/// crate without std has no unwinding.
pub(crate) fn clippy() -> Result<[Command; 2]> {
    Ok([clippy_of(Variant::Plain)?, clippy_of(Variant::Tracing)?])
}

fn clippy_of(variant: Variant) -> Result<Command> {
    let mut cargo = shell::pristine_cargo(shell::host_cargo());
    cargo
        .args(["clippy", "--release", "--package", "qfence-ebpf"])
        .args(["--features", variant.features()])
        .arg("--target-dir")
        .arg(workspace::target().join("ebpf-clippy"))
        .env("RUSTC_BOOTSTRAP", UNSTABLE_CRATES)
        .env("CARGO_PROFILE_RELEASE_PANIC", "abort")
        .env("CARGO_ENCODED_RUSTFLAGS", bpf_target_arch()?)
        .args(["--", "-D", "warnings"]);
    Ok(cargo)
}

/// aya's setting for the kernel's register layout, which depends on the machine and not on the eBPF target.
fn bpf_target_arch() -> Result<String> {
    match ARCH {
        "x86_64" | "aarch64" => Ok(format!("--cfg=bpf_target_arch=\"{ARCH}\"")),
        _ => bail!("qfence is for x86_64 and aarch64, not for {ARCH}"),
    }
}

/// Writes the object if its content changed, or sets a new date if its source is newer. Otherwise the file is not
/// touched, because each change of it rebuilds qfence-user. The date is the start of the build: a source file that is
/// saved during the build counts as newer.
fn refresh(object: &Path, bytes: &[u8], started: SystemTime) -> Result<()> {
    let dated = object.metadata().and_then(|metadata| metadata.modified());
    if fs::read(object).ok().as_deref() != Some(bytes) {
        if let Some(dir) = object.parent() {
            fs::create_dir_all(dir)?;
        }
        fs::write(object, bytes)?;
    } else if newest_source()? <= dated? {
        return Ok(());
    }
    fs::File::options()
        .append(true)
        .open(object)?
        .set_modified(started)?;
    Ok(())
}

/// The date of the last change in the crates of the object.
fn newest_source() -> Result<SystemTime> {
    let ebpf = newest(&workspace::root().join("qfence-ebpf"))?;
    let common = newest(&workspace::root().join("qfence-common"))?;
    Ok(ebpf.max(common))
}

/// The date of the newest file or directory at or below a path.
fn newest(path: &Path) -> Result<SystemTime> {
    let metadata = path.metadata()?;
    let mut date = metadata.modified()?;
    if metadata.is_dir() {
        for entry in fs::read_dir(path)? {
            date = date.max(newest(&entry?.path())?);
        }
    }
    Ok(date)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn the_newest_date_is_that_of_the_newest_file_within() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("src/main.rs");
        fs::create_dir(dir.path().join("src")).unwrap();
        fs::write(&file, "").unwrap();
        let future = SystemTime::now() + Duration::from_secs(60);
        fs::File::options()
            .append(true)
            .open(&file)
            .unwrap()
            .set_modified(future)
            .unwrap();
        assert_eq!(newest(dir.path()).unwrap(), future);
    }

    #[test]
    fn an_object_newer_than_its_source_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let object = dir.path().join("ebpf/qfence.o");
        let (first, second) = (
            SystemTime::now(),
            SystemTime::now() + Duration::from_secs(60),
        );
        refresh(&object, b"one", first).unwrap();
        refresh(&object, b"one", second).unwrap();
        assert_eq!(object.metadata().unwrap().modified().unwrap(), first);
        refresh(&object, b"two", second).unwrap();
        assert_eq!(object.metadata().unwrap().modified().unwrap(), second);
    }

    #[test]
    fn an_object_older_than_its_source_gets_a_new_date() {
        let dir = tempfile::tempdir().unwrap();
        let object = dir.path().join("qfence.o");
        let now = SystemTime::now();
        refresh(&object, b"one", SystemTime::UNIX_EPOCH).unwrap();
        refresh(&object, b"one", now).unwrap();
        assert_eq!(object.metadata().unwrap().modified().unwrap(), now);
    }
}

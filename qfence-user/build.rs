//! Finds the eBPF object that `cargo xtask build` made and hands its path to `include_bytes!`.
//!
//! An object that is missing, or older than its sources, is an error: a binary must never carry
//! programs other than the ones beside it in the tree.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::ExitCode,
    time::SystemTime,
};

/// Names an object built elsewhere; it is taken as it is.
const OVERRIDE: &str = "QFENCE_EBPF_OBJECT";

fn main() -> ExitCode {
    match find_object() {
        Ok(object) => {
            println!(
                "cargo::rustc-env=QFENCE_EMBEDDED_OBJECT={}",
                object.display()
            );
            ExitCode::SUCCESS
        }
        Err(message) => {
            println!("cargo::error={message}");
            ExitCode::FAILURE
        }
    }
}

fn find_object() -> Result<PathBuf, String> {
    println!("cargo::rerun-if-env-changed={OVERRIDE}");
    if let Some(object) = env::var_os(OVERRIDE) {
        let object = PathBuf::from(object);
        println!("cargo::rerun-if-changed={}", object.display());
        modified(&object)?;
        return Ok(object);
    }

    let manifest = env::var("CARGO_MANIFEST_DIR").map_err(|error| error.to_string())?;
    let workspace = Path::new(&manifest)
        .parent()
        .ok_or("no workspace above qfence-user")?;
    let object = workspace.join("target/ebpf/qfence.o");
    println!("cargo::rerun-if-changed={}", object.display());
    let built = modified(&object)?;
    for sources in ["qfence-ebpf/src", "qfence-common/src"] {
        let sources = workspace.join(sources);
        println!("cargo::rerun-if-changed={}", sources.display());
        let newest = newest_in(&sources)?;
        if newest > built {
            return Err(format!(
                "{} is older than {}: run `cargo xtask build`",
                object.display(),
                sources.display()
            ));
        }
    }
    Ok(object)
}

fn modified(path: &Path) -> Result<SystemTime, String> {
    fs::metadata(path)
        .and_then(|metadata| metadata.modified())
        .map_err(|error| {
            format!(
                "no eBPF object at {}: {error}: run `cargo xtask build`",
                path.display()
            )
        })
}

fn newest_in(directory: &Path) -> Result<SystemTime, String> {
    let context = |error| format!("cannot read {}: {error}", directory.display());
    let mut newest = SystemTime::UNIX_EPOCH;
    for entry in fs::read_dir(directory).map_err(context)? {
        let path = entry.map_err(context)?.path();
        newest = newest.max(if path.is_dir() {
            newest_in(&path)?
        } else {
            modified(&path)?
        });
    }
    Ok(newest)
}

//! Finds the eBPF objects that `cargo xtask build` made and hands their paths to `include_bytes!`. Names the commit for
//! `--version`.
//!
//! One that is missing, or older than its sources, is an error: a binary must never carry
//! programs other than the ones beside it in the tree.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::ExitCode,
    time::SystemTime,
};

/// Names an object built elsewhere; it is taken as it is, and the others from beside it.
const OVERRIDE: &str = "QFENCE_EBPF_OBJECT";

/// The file of the programs that say what they decide.
const TRACING: &str = "qfence-trace.o";

/// The file of the program that the fences of a network namespace share.
const LOCAL_IN: &str = "qfence-local-in.o";

/// Names the commit that is built. xtask sets it for the programs that are installed, and for no others: each commit would
/// build the library anew.
const COMMIT: &str = "QFENCE_COMMIT";

fn main() -> ExitCode {
    match commit() {
        Ok(commit) => println!("cargo::rustc-env={COMMIT}={commit}"),
        Err(message) => {
            println!("cargo::error={message}");
            return ExitCode::FAILURE;
        }
    }
    match find_objects() {
        Ok([plain, tracing, local_in]) => {
            println!(
                "cargo::rustc-env=QFENCE_EMBEDDED_OBJECT={}",
                plain.display()
            );
            println!(
                "cargo::rustc-env=QFENCE_TRACING_OBJECT={}",
                tracing.display()
            );
            println!(
                "cargo::rustc-env=QFENCE_LOCAL_IN_OBJECT={}",
                local_in.display()
            );
            ExitCode::SUCCESS
        }
        Err(message) => {
            println!("cargo::error={message}");
            ExitCode::FAILURE
        }
    }
}

/// The commit: that of the variable; or the one that `git archive` wrote to the file xtask/COMMIT; or `unknown`.
fn commit() -> Result<String, String> {
    println!("cargo::rerun-if-env-changed={COMMIT}");
    if let Ok(commit) = env::var(COMMIT) {
        return Ok(commit);
    }
    let file = workspace()?.join("xtask/COMMIT");
    println!("cargo::rerun-if-changed={}", file.display());
    let text = fs::read_to_string(&file)
        .map_err(|error| format!("cannot read {}: {error}", file.display()))?;
    let commit = text.split_whitespace().next().unwrap_or_default();
    // In a checkout the file has a placeholder.
    let is_commit = commit.bytes().all(|byte| byte.is_ascii_hexdigit()) && commit.len() >= 40;
    Ok(if is_commit { commit } else { "unknown" }.to_owned())
}

fn workspace() -> Result<PathBuf, String> {
    let manifest = env::var("CARGO_MANIFEST_DIR").map_err(|error| error.to_string())?;
    let workspace = Path::new(&manifest).parent();
    Ok(workspace
        .ok_or("no workspace above qfence-user")?
        .to_owned())
}

fn find_objects() -> Result<[PathBuf; 3], String> {
    println!("cargo::rerun-if-env-changed={OVERRIDE}");
    if let Some(object) = env::var_os(OVERRIDE) {
        let object = PathBuf::from(object);
        let beside = |file| object.with_file_name(file);
        let objects = [object.clone(), beside(TRACING), beside(LOCAL_IN)];
        for object in &objects {
            println!("cargo::rerun-if-changed={}", object.display());
            modified(object)?;
        }
        return Ok(objects);
    }

    let workspace = workspace()?;
    let objects =
        ["qfence.o", TRACING, LOCAL_IN].map(|file| workspace.join("target/ebpf").join(file));
    for sources in ["qfence-ebpf/src", "qfence-common/src"] {
        let sources = workspace.join(sources);
        println!("cargo::rerun-if-changed={}", sources.display());
        let newest = newest_in(&sources)?;
        for object in &objects {
            println!("cargo::rerun-if-changed={}", object.display());
            if newest > modified(object)? {
                return Err(format!(
                    "{} is older than {}: run `cargo xtask build`",
                    object.display(),
                    sources.display()
                ));
            }
        }
    }
    Ok(objects)
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

//! `package --check`: whether two checkouts of the commit, in two directories, give the same bytes.
//!
//! The second checkout is a clone in a temporary directory. It has its own build directory, and the same tools.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};

use crate::{
    build::{self, Profile},
    installed::made::sha256,
    report, shell, workspace,
};

/// The names of the eBPF objects.
const OBJECTS: [&str; 3] = ["qfence.o", "qfence-trace.o", "qfence-local-in.o"];

/// Makes the packages in both checkouts and compares them, the programs and the eBPF objects.
pub(crate) fn check(profile: Profile) -> Result<()> {
    ensure!(
        !crate::commit::has_changes()?,
        "the checkout has changes or new files, which its clone would not have: commit them first"
    );
    let packages = super::package(profile)?;
    let own: Vec<PathBuf> = packages
        .into_iter()
        .chain(built(&workspace::target(), profile))
        .collect();

    let clone = tempfile::Builder::new()
        .prefix("qfence-clone-")
        .tempdir_in("/var/tmp")
        .context("making a directory for the clone")?;
    let root = clone.path().join("another/checkout");
    report::heading(&format!("the same in {}", root.display()));
    let mut git = shell::program("git");
    git.args(["clone", "--quiet"])
        .arg(workspace::root())
        .arg(&root);
    shell::run(&mut git)?;
    // The tools are those of this checkout: building them again would show nothing.
    fs::create_dir(root.join("target"))?;
    symlink(workspace::tools(), root.join("target/tools"))?;
    let mut xtask = shell::program(shell::host_cargo());
    xtask
        .current_dir(&root)
        .env_remove("CARGO_TARGET_DIR")
        .args(["xtask", "package"]);
    if profile == Profile::Quick {
        xtask.arg("--quick");
    }
    shell::run(&mut xtask)?;

    let mut differing = Vec::new();
    for file in &own {
        let other = root.join(file.strip_prefix(workspace::root())?);
        let (one, two) = (sha256(file)?, sha256(&other)?);
        let verdict = if one == two { "same" } else { "DIFFERENT" };
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        report::result(&format!("{verdict:<10} {one} {name}"))?;
        if one != two {
            keep(&other, &name)?;
            differing.push(name.into_owned());
        }
    }
    ensure!(
        differing.is_empty(),
        "two checkouts of a commit gave other bytes of {}; those of the clone are in {}",
        differing.join(", "),
        differing_dir().display()
    );
    report::note("two checkouts of the commit give the same bytes");
    Ok(())
}

/// The programs and objects in a build directory.
fn built(target: &Path, profile: Profile) -> Vec<PathBuf> {
    let program = build::program(profile);
    let objects = OBJECTS.map(|name| target.join("ebpf").join(name));
    let programs = [program.clone(), program.with_file_name("qfence-verify")];
    objects.into_iter().chain(programs).collect()
}

fn differing_dir() -> PathBuf {
    workspace::target().join("package/differing")
}

/// Keeps a file of the clone, to look at.
fn keep(file: &Path, name: &str) -> Result<()> {
    let dir = differing_dir();
    fs::create_dir_all(&dir).with_context(|| format!("creating {}", dir.display()))?;
    fs::copy(file, dir.join(name)).with_context(|| format!("copying {}", file.display()))?;
    Ok(())
}

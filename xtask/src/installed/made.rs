//! Makes what is installed and not in the checkout: the programs, man pages, completions, licences, the list of
//! dependencies (SBOM), and the manifest.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use sha2::{Digest as _, Sha256};

use super::licences;
use crate::{
    build::{self, Profile},
    commit::Commit,
    report, shell, tools, workspace,
};

/// What was made.
#[derive(Clone, Debug)]
pub(crate) struct Made {
    /// qfence-user, with qfence-verify beside it.
    pub(crate) program: PathBuf,
    /// The directory of `man` and `completions`.
    pub(crate) pages: PathBuf,
    /// The text of share/qfence/build.toml, which `qfence-user doctor` reads.
    pub(crate) manifest: String,
    /// The copyright of qfence, and where those of the libraries are.
    pub(crate) copyright: String,
    /// The licences of all libraries.
    pub(crate) licences: PathBuf,
    /// The list of dependencies in CycloneDX's format, in packages.
    pub(crate) sbom: Option<PathBuf>,
}

/// Builds the programs in that profile, and makes the rest in `dir`.
pub(crate) fn make(dir: &Path, profile: Profile, commit: &Commit) -> Result<Made> {
    report::heading("build");
    let program = build::build(profile)?;
    let generator = build::build_with("pages")?;
    report::heading("pages and licences");
    let pages = dir.join("pages");
    if pages.exists() {
        fs::remove_dir_all(&pages).with_context(|| format!("removing {}", pages.display()))?;
    }
    fs::create_dir_all(&pages).with_context(|| format!("creating {}", pages.display()))?;
    let mut generate = shell::program(generator);
    shell::run(generate.arg(&pages).arg(commit.date.to_string()))?;
    let licences = dir.join("licences.txt");
    fs::write(&licences, licences::of_libraries()?)
        .with_context(|| format!("writing {}", licences.display()))?;
    Ok(Made {
        manifest: manifest(&program)?,
        copyright: licences::copyright()?,
        program,
        pages,
        licences,
        sbom: None,
    })
}

/// The manifest: `doctor` compares with it what runs.
fn manifest(program: &Path) -> Result<String> {
    let version = env!("CARGO_PKG_VERSION");
    let mut said = shell::program(program);
    let said = shell::output(said.arg("--version"))?;
    // What it says of itself: a quick build does not know its commit.
    let field = |name: &str| {
        said.lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
            .with_context(|| format!("no {name} in the output of {} --version", program.display()))
    };
    let (commit, abi) = (field("commit")?, field("ABI")?);
    let mut text = format!(
        "# The build that was packaged. `qfence-user doctor` compares the programs with it.\n\
         version = \"{version}\"\ncommit = \"{commit}\"\nabi = {abi}\n\n[sha256]\n"
    );
    let objects = ["qfence-local-in.o", "qfence-trace.o", "qfence.o"]
        .map(|name| workspace::ebpf_objects().join(name));
    let programs = [program.to_owned(), program.with_file_name("qfence-verify")];
    for file in programs.iter().chain(&objects) {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        writeln!(text, "\"{name}\" = \"{}\"", sha256(file)?)?;
    }
    Ok(text)
}

/// The SHA-256 of a file, in hexadecimal digits.
pub(crate) fn sha256(file: &Path) -> Result<String> {
    let bytes = fs::read(file).with_context(|| format!("reading {}", file.display()))?;
    Ok(format!("{:x}", Sha256::digest(bytes)))
}

/// Lists the dependencies of qfence-user in a file of `dir`.
pub(crate) fn sbom(dir: &Path, commit: &Commit) -> Result<PathBuf> {
    const NAME: &str = "qfence.cdx";
    let root = workspace::root();
    let mut cyclonedx = shell::in_workspace(tools::CYCLONEDX.program()?);
    cyclonedx
        .args(["cyclonedx", "--format", "json", "--spec-version", "1.5"])
        .args(["--override-filename", NAME, "--quiet"])
        .args(["--manifest-path", "qfence-user/Cargo.toml"])
        .env("CARGO", shell::host_cargo())
        .env("SOURCE_DATE_EPOCH", commit.date.to_string());
    let outcome = shell::run(&mut cyclonedx);
    // It writes a file beside each manifest of the workspace.
    let file = format!("{NAME}.json");
    let written = root.join("qfence-user").join(&file);
    let text = fs::read_to_string(&written);
    for entry in fs::read_dir(root)? {
        let other = entry?.path().join(&file);
        if other.is_file() {
            fs::remove_file(&other).with_context(|| format!("removing {}", other.display()))?;
        }
    }
    outcome?;
    let text = text.with_context(|| format!("reading {}", written.display()))?;
    // It names packages of the workspace by their paths.
    let text = text.replace(&root.display().to_string(), "/qfence");
    let sbom = dir.join(&file);
    fs::write(&sbom, text).with_context(|| format!("writing {}", sbom.display()))?;
    Ok(sbom)
}

//! `setup`: finds missing packages and tools, reports what will be installed and why, and installs it.

use anyhow::Result;

use crate::{
    apt, linker, packages,
    packages::Package,
    report,
    toolchain::{self, Source},
};

/// Installs all that is missing to build and test.
pub(crate) fn setup() -> Result<()> {
    let source = toolchain::find()?;
    let packages = packages::missing(source.is_some());
    let needs_linker = match &source {
        Some(Source::Object(_)) => false,
        Some(Source::Compiler(compiler)) => !linker::is_ready(compiler)?,
        // An existing linker may have been built for another compiler than the one that will be installed.
        None => true,
    };
    if packages.is_empty() && !needs_linker {
        report::note("set up: nothing is missing");
        return Ok(());
    }
    report::note(&announcement(&packages, needs_linker));
    if !packages.is_empty() {
        let names: Vec<_> = packages.iter().map(|package| package.name).collect();
        apt::install(&names)?;
    }
    if let Source::Compiler(compiler) = toolchain::require()?
        && !linker::is_ready(&compiler)?
    {
        linker::install(&compiler)?;
    }
    Ok(())
}

/// Installs the programs that benchmarks compare qfence with. One that cannot be installed is reported and left out; that
/// is not an error.
pub(crate) fn competitors() {
    let missing = packages::missing_for_bench();
    if missing.is_empty() {
        return;
    }
    report::note("for comparison, going to install");
    for package in &missing {
        report::note(&line(package));
    }
    // One by one, so that a package that cannot be installed does not prevent the others.
    for Package { name, .. } in missing {
        if let Err(error) = apt::install(&[name]) {
            report::note(&format!("{name} is left out of the comparison: {error:#}"));
        }
    }
}

/// Says which missing packages are going to be installed, and for what, and installs them.
pub(crate) fn install(purpose: &str, missing: &[&Package]) -> Result<()> {
    if missing.is_empty() {
        return Ok(());
    }
    report::note(&format!("{purpose}, going to install"));
    for package in missing {
        report::note(&line(package));
    }
    let names: Vec<_> = missing.iter().map(|package| package.name).collect();
    apt::install(&names)
}

fn line(package: &Package) -> String {
    format!("    {:<24} {} (apt)", package.name, package.reason)
}

/// The message about the packages and tools that will be installed, with reasons.
fn announcement(packages: &[&Package], needs_linker: bool) -> String {
    let mut lines = vec!["set up: going to install".to_owned()];
    lines.extend(packages.iter().copied().map(line));
    if needs_linker {
        let name = format!("bpf-linker {}", linker::VERSION);
        lines.push(format!(
            "    {name:<24} links the eBPF programs (built in target/tools, a minute or two)"
        ));
    }
    lines.join("\n")
}

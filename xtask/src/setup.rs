//! `setup`: finds out what is missing, says what will be installed and why, and installs it.

use anyhow::Result;

use crate::{
    apt, linker, packages,
    packages::Package,
    report,
    toolchain::{self, Source},
};

/// Installs what is missing to build and test.
pub(crate) fn setup() -> Result<()> {
    let source = toolchain::find()?;
    let packages = packages::missing(source.is_some());
    let needs_linker = match &source {
        Some(Source::Object(_)) => false,
        Some(Source::Compiler(compiler)) => !linker::is_ready(compiler)?,
        // The compiler to come may be another than the one a linker was built for.
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

/// Installs what benchmarks compare qfence with. What cannot be installed is left out of them: no error.
pub(crate) fn competitors() {
    let missing = packages::missing_for_bench();
    if missing.is_empty() {
        return;
    }
    report::note("to compare with, going to install");
    for package in &missing {
        report::note(&line(package));
    }
    // One by one: what is not to be had keeps nothing else out.
    for Package { name, .. } in missing {
        if let Err(error) = apt::install(&[name]) {
            report::note(&format!("{name} will not be compared with: {error:#}"));
        }
    }
}

fn line(package: &Package) -> String {
    format!("    {:<24} {} (apt)", package.name, package.reason)
}

/// What is going to be installed, and why.
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

//! What end-to-end tests, benchmarks and the machine need and what a program of the package `tests` makes: the static
//! program of probes, the Linux guest, Prometheus.

use std::path::PathBuf;

use anyhow::Result;

use crate::{build::build_with, report, shell};

/// The variable that names the program of probes to the tests (`tests/src/probe.rs`).
pub(crate) const PROBE: &str = "QFENCE_PROBE";

/// The program of probes for tests; built if it is not up to date.
pub(crate) fn probe() -> Result<PathBuf> {
    part(
        "the probe, a static program that makes probes and traffic",
        "probe",
    )
}

/// The program of probes in another profile of cargo.
pub(crate) fn probe_in(profile: &str) -> Result<PathBuf> {
    part(
        "the probe, which makes the traffic",
        &format!("probe={profile}"),
    )
}

/// The Linux guest.
pub(crate) fn image() -> Result<PathBuf> {
    part(
        "the Linux guest: Debian's cloud kernel, unpacked under target/guest, and busybox",
        "image",
    )
}

/// Prometheus.
pub(crate) fn prometheus() -> Result<PathBuf> {
    part(
        "Prometheus: Debian's, 19 MB, unpacked under target/guest and not installed",
        "prometheus",
    )
}

fn part(what: &str, name: &str) -> Result<PathBuf> {
    let prepare = build_with("prepare")?;
    let path = report::during(what, || shell::output(shell::program(prepare).arg(name)))?;
    Ok(path.trim_end().into())
}

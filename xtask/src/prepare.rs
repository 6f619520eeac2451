//! Runs the program `prepare` of the package `tests`, which builds what end-to-end tests, benchmarks and the machine
//! need: the static program `probe`, the Linux guest, container engines, libvirt, LXC, clients of DNS,
//! Prometheus.

use std::path::PathBuf;

use anyhow::Result;

use crate::{build::build_with, report, shell};

/// The variable with the path of the program `probe`, for the tests (`tests/src/probe.rs`).
pub(crate) const PROBE: &str = "QFENCE_PROBE";

/// The program `prepare`, built.
pub(crate) struct Preparer(PathBuf);

impl Preparer {
    /// Builds it together with qfence in the quick profile.
    pub(crate) fn build() -> Result<Self> {
        build_with("prepare").map(Self)
    }

    /// The program `probe` for tests; built if it is not up to date.
    pub(crate) fn probe(&self) -> Result<PathBuf> {
        self.part(
            "the probe, a static program that makes probes and traffic",
            "probe",
        )
    }

    /// The program `probe` in another cargo profile.
    pub(crate) fn probe_in(&self, profile: &str) -> Result<PathBuf> {
        self.part(
            "the probe, which makes the traffic",
            &format!("probe={profile}"),
        )
    }

    /// The Linux guest.
    pub(crate) fn image(&self) -> Result<PathBuf> {
        self.part(
            "the Linux guest: Debian's cloud kernel, unpacked under target/guest, and busybox",
            "image",
        )
    }

    /// The container engines.
    pub(crate) fn engines(&self) -> Result<PathBuf> {
        self.part(
            "podman and Docker: Debian's, 95 MB to download, unpacked under target/guest and not installed",
            "engines",
        )
    }

    /// A node of Kubernetes.
    pub(crate) fn cri(&self) -> Result<PathBuf> {
        self.part(
            "a node of Kubernetes: Debian's containerd, 60 MB to download, unpacked under target/guest and not installed",
            "cri",
        )
    }

    /// libvirt.
    pub(crate) fn libvirt(&self) -> Result<PathBuf> {
        self.part(
            "libvirt: Debian's, 11 MB to download, unpacked under target/guest and not installed",
            "libvirt",
        )
    }

    /// LXC.
    pub(crate) fn lxc(&self) -> Result<PathBuf> {
        self.part(
            "LXC: Debian's, 4 MB to download, unpacked under target/guest and not installed",
            "lxc",
        )
    }

    /// Clients of DNS.
    pub(crate) fn resolvers(&self) -> Result<PathBuf> {
        self.part(
            "clients of DNS: Debian's, 4 MB to download, unpacked under target/guest and not installed",
            "resolvers",
        )
    }

    /// Prometheus.
    pub(crate) fn prometheus(&self) -> Result<PathBuf> {
        self.part(
            "Prometheus: Debian's, 19 MB, unpacked under target/guest and not installed",
            "prometheus",
        )
    }

    fn part(&self, what: &str, name: &str) -> Result<PathBuf> {
        let path = report::during(what, || shell::output(shell::program(&self.0).arg(name)))?;
        Ok(path.trim_end().into())
    }
}

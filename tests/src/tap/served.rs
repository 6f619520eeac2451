//! What the gateway serves in the guest's network, as libvirt's default network does: DHCP, DNS and router
//! advertisements, all by dnsmasq.

use std::{fs, net::IpAddr};

use anyhow::{Context as _, Result};

use super::scene::Scene;
use crate::{process::Process, run::wait_until};

/// The first address that a guest gets by DHCP.
pub const FIRST: &str = "192.168.122.100";

/// A running dnsmasq; it ends when dropped.
#[derive(Debug)]
pub struct Served {
    _process: Process,
    dir: tempfile::TempDir,
}

impl Served {
    /// Starts it on the device of the guest's network, and waits until it serves.
    pub fn start(scene: &Scene, records: &[(&str, IpAddr)]) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("qfence-dhcp-").tempdir()?;
        let log = dir.path().join("log");
        let mut command = scene.host.command("dnsmasq");
        command
            .args("--keep-in-foreground --conf-file=/dev/null --pid-file".split(' '))
            .args("--no-resolv --no-hosts --bind-dynamic --log-queries --log-dhcp".split(' '))
            // A change of user or group would clear the death signal.
            .args(["--user=root", "--group=root"])
            .arg(format!("--interface={}", scene.device()))
            .args(["--except-interface=lo", "--no-ping"])
            .args([
                "--dhcp-range=192.168.122.100,192.168.122.199,255.255.255.0,1h",
                "--dhcp-range=fd00:122::,ra-only,64",
                "--dhcp-authoritative",
                "--enable-ra",
            ])
            .arg(format!("--ra-param={},high,10", scene.device()))
            .arg(format!(
                "--dhcp-leasefile={}",
                dir.path().join("leases").display()
            ))
            .arg(format!("--log-facility={}", log.display()))
            .args(
                records
                    .iter()
                    .map(|(name, address)| format!("--address=/{name}/{address}")),
            );
        let process = Process::spawn(command).context("start dnsmasq (package dnsmasq-base)")?;
        wait_until("dnsmasq serves", || {
            Ok(fs::read_to_string(&log).is_ok_and(|text| text.contains("router advertisement")))
        })
        .with_context(|| fs::read_to_string(&log).unwrap_or_default())?;
        Ok(Self {
            _process: process,
            dir,
        })
    }

    /// What it has logged.
    pub fn log(&self) -> Result<String> {
        fs::read_to_string(self.dir.path().join("log")).context("read dnsmasq's log")
    }
}

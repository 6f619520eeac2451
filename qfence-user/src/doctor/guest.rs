//! Whether this machine is a guest of another one, which its fences do not count as the host.

use std::{fs, net::IpAddr, path::Path};

use anyhow::{Context as _, Result};

use super::{finding::Finding, nameservers};
use crate::{
    base::paths::Paths,
    host::{Here, addresses::gateways},
    policy::{Prefix, profile::host_file::HostFile},
};

const NAME: &str = "machine around";

/// The kind of a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Guest {
    Wsl2,
    Container,
    Vm,
}

/// The facts that show it.
#[derive(Clone, Debug, Default)]
struct Signs {
    /// The kernel's release.
    release: String,
    /// Whether a processor's flags include `hypervisor`.
    hypervisor: bool,
    /// Whether a file of a container engine exists.
    container: bool,
}

impl Signs {
    fn read(proc: &Path) -> Self {
        let read = |name: &str| fs::read_to_string(proc.join(name)).unwrap_or_default();
        let is_flag = |line: &str| {
            line.starts_with("flags") && line.split_whitespace().any(|flag| flag == "hypervisor")
        };
        Self {
            release: read("sys/kernel/osrelease"),
            hypervisor: read("cpuinfo").lines().any(is_flag),
            container: [
                "/.dockerenv",
                "/run/.containerenv",
                "/run/systemd/container",
            ]
            .iter()
            .any(|path| Path::new(path).exists()),
        }
    }

    fn guest(&self) -> Option<Guest> {
        // The first version of WSL has no Linux kernel.
        let is_wsl = self.release.to_lowercase().contains("microsoft");
        match self {
            _ if is_wsl => Some(Guest::Wsl2),
            Self {
                container: true, ..
            } => Some(Guest::Container),
            Self {
                hypervisor: true, ..
            } => Some(Guest::Vm),
            _ => None,
        }
    }
}

/// Examines this machine, and the administrator's file of the host's addresses.
///
/// # Errors
/// If the event loop cannot be started.
pub fn examine(paths: &Paths) -> Result<Vec<Finding>> {
    let file = match HostFile::read(&paths.host_file) {
        Ok(file) => file,
        Err(error) => {
            return Ok(vec![Finding::degraded(
                "host.toml",
                format!("{:#}", anyhow::Error::from(error)),
                "correct it: `exec` starts nothing until it is valid",
            )]);
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the event loop")?;
    let gateways = runtime.block_on(gateways::read()).unwrap_or_default();
    let mut findings = vec![judge(Signs::read(&paths.proc).guest(), &file, gateways)];
    if !file.host.is_empty() {
        let found = format!(
            "{} names {} further prefixes",
            paths.host_file.display(),
            file.host.len()
        );
        findings.push(Finding::ok("host.toml", found));
    }
    findings.extend(runtime.block_on(translators(paths)));
    findings.extend(runtime.block_on(nameservers::examine(paths)));
    Ok(findings)
}

/// The NAT64 translators of the network, if there are any.
async fn translators(paths: &Paths) -> Option<Finding> {
    let here = Here::read(paths).await.ok()?;
    let all: Vec<_> = here
        .nat64
        .translators()
        .iter()
        .map(ToString::to_string)
        .collect();
    (!all.is_empty()).then(|| {
        Finding::ok(
            "NAT64",
            format!(
                "the host's IPv4 addresses under {} are the host's too",
                all.join(", ")
            ),
        )
    })
}

fn judge(
    guest: Option<Guest>,
    file: &HostFile,
    gateways: impl IntoIterator<Item = Prefix>,
) -> Finding {
    let Some(guest) = guest else {
        return Finding::ok(
            NAME,
            "this machine shows no sign of being a guest of another one",
        );
    };
    let name = match guest {
        Guest::Wsl2 => "a WSL2 machine",
        Guest::Container => "a container",
        Guest::Vm => "a virtual machine",
    };
    let mut gateways: Vec<_> = gateways.into_iter().map(address).collect();
    gateways.sort_by_key(IpAddr::is_ipv6);
    let Some(gateway) = gateways.first() else {
        return Finding::ok(
            NAME,
            format!("this is {name}; it has no default route to its own host"),
        );
    };
    let its_host = match guest {
        // A cloud's gateway is a router, and its host has no address.
        Guest::Vm => "its own host, or its router, is",
        Guest::Wsl2 | Guest::Container => "its own host is",
    };
    let denial = match file.gateway {
        true => "which host.toml counts as the host",
        false => {
            "which fences do not count as the host; --deny gateway denies it, and host = [\"gateway\"] in \
             /etc/qfence/host.toml does so for all fences"
        }
    };
    Finding::ok(
        NAME,
        format!("this is {name}: {its_host} {gateway}, {denial}"),
    )
}

fn address(prefix: Prefix) -> IpAddr {
    IpAddr::V6(prefix.addr()).to_canonical()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::hostset::single;

    #[test]
    fn each_kind_of_guest_is_recognised() {
        let signs = |release: &str, hypervisor, container| Signs {
            release: release.into(),
            hypervisor,
            container,
        };
        for (signs, guest) in [
            (
                signs("5.15.153.1-microsoft-standard-WSL2", true, false),
                Some(Guest::Wsl2),
            ),
            (signs("6.1.0-18-amd64", true, true), Some(Guest::Container)),
            (signs("6.1.0-18-amd64", true, false), Some(Guest::Vm)),
            (signs("6.1.0-18-amd64", false, false), None),
        ] {
            assert_eq!(signs.guest(), guest, "{signs:?}");
        }
    }

    #[test]
    fn its_own_host_is_named_with_the_rule_that_denies_it() {
        let gateways = || ["fe80::1", "192.0.2.1"].map(|text| single(text.parse().unwrap()));
        let found = |guest, gateway| {
            let file = HostFile {
                gateway,
                ..HostFile::default()
            };
            judge(guest, &file, gateways()).found
        };
        let wsl = found(Some(Guest::Wsl2), false);
        assert!(
            wsl.starts_with("this is a WSL2 machine: its own host is 192.0.2.1, "),
            "{wsl}"
        );
        assert!(wsl.contains("--deny gateway"), "{wsl}");
        let counted = found(Some(Guest::Vm), true);
        assert!(
            counted.ends_with("192.0.2.1, which host.toml counts as the host"),
            "{counted}"
        );
        assert!(found(None, false).contains("no sign"));
    }
}

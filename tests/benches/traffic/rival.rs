//! What keeps a user or a cgroup from the host: a fence, and the firewalls that people use.

use std::{fs, process::Command};

use anyhow::{Context as _, Result, bail};
use tests::{namespace::NOBODY, remains, world::World};

/// The 100 addresses of a host that has so many; the world's own come after them.
const RULES: u8 = 100;

/// With what a scene is set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rival {
    Unfenced,
    Fence,
    /// A fence whose policy allows its own listeners.
    OfSelf,
    /// A fence whose policy allows what it looks up, and denies the rest.
    Names,
    /// A fence of another build (`cargo xtask bench --against`).
    OtherBuild,
    Iptables,
    Iptables100,
    Nftables,
}

impl Rival {
    pub(crate) const ALL: [Self; 8] = [
        Self::Unfenced,
        Self::Fence,
        Self::OfSelf,
        Self::Names,
        Self::OtherBuild,
        Self::Iptables,
        Self::Iptables100,
        Self::Nftables,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Unfenced => "unfenced",
            Self::Fence => "qfence",
            Self::OfSelf => "qfence, --allow self",
            Self::Names => "qfence, by names",
            Self::OtherBuild => "the other build",
            Self::Iptables => "iptables, owner",
            Self::Iptables100 => "iptables, owner, 100 rules",
            Self::Nftables => "nftables, cgroup and fib",
        }
    }

    /// Whether there is nothing to measure without it.
    pub(crate) fn is_needed(self) -> bool {
        matches!(self, Self::Unfenced | Self::Fence | Self::OfSelf)
    }

    /// Whether a goal is set by it.
    pub(crate) fn does_the_same(self) -> bool {
        !self.is_needed() && !matches!(self, Self::Names | Self::OtherBuild)
    }

    /// Whether it is a fence.
    pub(crate) fn is_fence(self) -> bool {
        matches!(
            self,
            Self::Fence | Self::OfSelf | Self::Names | Self::OtherBuild
        )
    }

    /// Sets up the host of a world. The fence is set up with what runs in it.
    pub(crate) fn set_up(self, world: &World, cgroup: &str) -> Result<()> {
        let owner = format!("-m owner --uid-owner {}", NOBODY.uid);
        // The host by the way there, as a rule for QEMU's user has it; the resolver is let.
        let by_way = [
            format!("-A OUTPUT -o lo {owner} -p udp --dport 53 -j ACCEPT"),
            format!("-A OUTPUT -o lo {owner} -p tcp --dport 53 -j ACCEPT"),
            format!("-A OUTPUT -o lo {owner} -p tcp -j REJECT --reject-with tcp-reset"),
            format!("-A OUTPUT -o lo {owner} -j REJECT"),
        ];
        match self {
            Self::Unfenced | Self::Fence | Self::OfSelf | Self::Names | Self::OtherBuild => Ok(()),
            Self::Iptables => tables(world, |_| by_way.to_vec()),
            Self::Iptables100 => tables(world, |program| {
                let addresses = (1..=RULES).map(|last| match program {
                    "iptables" => format!("10.99.0.{last}"),
                    _ => format!("2001:db8:99::{last}"),
                });
                addresses
                    .map(|address| format!("-A OUTPUT -d {address} {owner} -j REJECT"))
                    .chain(by_way.clone())
                    .collect()
            }),
            Self::Nftables => nftables(world, cgroup),
        }
    }
}

fn tables(world: &World, rules: impl Fn(&str) -> Vec<String>) -> Result<()> {
    for program in ["iptables", "ip6tables"] {
        for rule in rules(program) {
            let mut command = world.host.command(program);
            succeed(command.args(rule.split_whitespace()))?;
        }
    }
    Ok(())
}

/// A rule for a cgroup, by its path from the root; nft looks for that below /sys/fs/cgroup, wherever the
/// hierarchy is mounted.
fn nftables(world: &World, cgroup: &str) -> Result<()> {
    let mount = remains::cgroup2_mount()?;
    let of_cgroup = format!("socket cgroupv2 level 1 \"{cgroup}\"");
    let rules = format!(
        "table inet rival {{\n\
         chain out {{\n\
         type filter hook output priority 0;\n\
         {of_cgroup} meta l4proto {{ tcp, udp }} th dport 53 accept\n\
         {of_cgroup} fib daddr type {{ local, broadcast, multicast, anycast }} meta l4proto tcp reject with tcp reset\n\
         {of_cgroup} fib daddr type {{ local, broadcast, multicast, anycast }} reject\n\
         }}\n}}\n"
    );
    let file = tempfile::NamedTempFile::new()?;
    fs::write(file.path(), rules)?;
    let script = r#"mount --bind "$1" /sys/fs/cgroup && exec nft -f "$2""#;
    let mut command = world.host.command("unshare");
    command.args(["--mount", "sh", "-c", script, "sh"]);
    succeed(command.arg(mount).arg(file.path()))
}

fn succeed(command: &mut Command) -> Result<()> {
    let output = command
        .output()
        .with_context(|| format!("run {}", command.get_program().display()))?;
    if !output.status.success() {
        bail!(
            "{}: {}",
            command.get_program().display(),
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(())
}

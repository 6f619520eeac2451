//! What keeps a guest with a tap device from its host: a fence, and the rules of a firewall that people use.

use anyhow::{Context as _, Result, bail};
use tests::{
    probe::output,
    tap::{Link, Scene},
};

use crate::scene::MAC;

/// With what a scene is set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rival {
    Unfenced,
    Fence,
    Iptables,
    Nftables,
    /// A second host without a fence: the control of the measurement.
    Control,
}

/// The rules of iptables and ip6tables: what enters by the device reaches DHCP and DNS of the host, and is forwarded to
/// the internet.
const IPTABLES: [&str; 8] = [
    "-A INPUT -i tap0 -p udp --dport 67 -j ACCEPT",
    "-A INPUT -i tap0 -p udp --dport 53 -j ACCEPT",
    "-A INPUT -i tap0 -p tcp --dport 53 -j ACCEPT",
    "-A INPUT -i tap0 -p tcp -j REJECT --reject-with tcp-reset",
    "-A INPUT -i tap0 -j REJECT",
    "-A FORWARD -i tap0 -o wan -j ACCEPT",
    "-A FORWARD -o tap0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
    "-A FORWARD -i tap0 -j REJECT",
];

/// The same for nftables, with the device of the guest's network and what tells the guest from others there.
fn nftables(device: &str, guest: &str) -> String {
    format!(
        "
table inet rival {{
    chain input {{
        type filter hook input priority 0;
        {guest} udp dport {{ 67, 53 }} accept
        {guest} tcp dport 53 accept
        {guest} meta l4proto tcp reject with tcp reset
        {guest} reject
    }}
    chain forward {{
        type filter hook forward priority 0;
        {guest} oifname wan accept
        oifname {device} ct state established,related accept
        {guest} reject
    }}
}}
"
    )
}

impl Rival {
    pub(crate) const ALL: [Self; 5] = [
        Self::Unfenced,
        Self::Fence,
        Self::Iptables,
        Self::Nftables,
        Self::Control,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Unfenced => "unfenced",
            Self::Fence => "qfence",
            Self::Iptables => "iptables, INPUT and FORWARD",
            Self::Nftables => "nftables, input and forward",
            Self::Control => "unfenced, another host",
        }
    }

    /// Whether there is nothing to measure without it.
    pub(crate) fn is_needed(self) -> bool {
        matches!(self, Self::Unfenced | Self::Fence | Self::Control)
    }

    /// Sets up the host of a scene. The fence is made by what runs in it.
    pub(crate) fn set_up(self, scene: &Scene) -> Result<()> {
        match self {
            Self::Unfenced | Self::Fence | Self::Control => Ok(()),
            Self::Nftables => {
                let device = scene.device();
                let guest = match scene.kind.link {
                    Link::Routed => format!("iifname {device}"),
                    Link::Bridged => format!("iifname {device} ether saddr {MAC}"),
                };
                scene.nft(&nftables(device, &guest))
            }
            Self::Iptables => {
                for program in ["iptables", "ip6tables"] {
                    for rule in IPTABLES {
                        let mut command = scene.host.command(program);
                        command.args(rule.split_whitespace());
                        output(&mut command).context("package iptables")?;
                    }
                }
                Ok(())
            }
        }
    }

    /// Removes what [`Self::set_up`] has set up.
    ///
    /// # Errors
    /// For iptables: its tables, and their hooks, stay as long as the namespace.
    pub(crate) fn take_away(self, scene: &Scene) -> Result<()> {
        match self {
            Self::Unfenced | Self::Fence | Self::Control => Ok(()),
            Self::Nftables => scene.nft("delete table inet rival"),
            Self::Iptables => bail!("tables of iptables stay"),
        }
    }
}

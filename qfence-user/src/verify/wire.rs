//! Devices, addresses and routes of a network namespace, by netlink.

use std::{
    future::Future,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::{AsFd, AsRawFd},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use futures_util::TryStreamExt;
use netlink_packet_route::{
    address::{AddressAttribute, AddressFlags},
    link::{InfoData, InfoKind, InfoVeth},
    route::{RouteScope, RouteType},
    rule::RuleAction,
};
use rtnetlink::{Handle, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder};
use tokio::time::{Instant, sleep};

use super::netns::Netns;
use crate::{host::addresses, policy::hostset::single};

/// The time limit for an address to become local. The kernel adds it in a worker, without delay on an idle machine.
const PATIENCE: Duration = Duration::from_secs(10);

/// An address with the prefix length of its subnet, or a prefix.
pub type Address = (IpAddr, u8);

/// The network devices of a namespace.
pub struct Wire {
    handle: Handle,
}

impl Wire {
    /// Runs `job` to its end with the devices of a namespace.
    ///
    /// # Errors
    /// The error of `job`; if a netlink socket cannot be opened.
    pub fn within<F: Future<Output = Result<()>>>(
        netns: &Netns,
        job: impl FnOnce(Self) -> F + Send,
    ) -> Result<()> {
        netns.run(|| {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .context("cannot start an event loop")?;
            runtime.block_on(async {
                let (connection, handle, _) =
                    rtnetlink::new_connection().context("cannot open a netlink socket")?;
                tokio::spawn(connection);
                job(Self { handle }).await
            })
        })
    }

    /// Makes a pair of devices with the same name, one in this namespace and one in `there`.
    ///
    /// # Errors
    /// If the kernel cannot make it.
    pub async fn join(&self, name: &str, there: &Netns) -> Result<()> {
        let peer = LinkMessageBuilder::<LinkUnspec>::new()
            .name(name)
            .setns_by_fd(there.as_fd().as_raw_fd())
            .build();
        let pair = LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth)
            .name(name)
            .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
            .build();
        let added = self.handle.link().add(pair).execute().await;
        added.context("cannot make a pair of network devices (CONFIG_VETH)")
    }

    /// Brings a device up.
    ///
    /// # Errors
    /// If the device does not exist, or cannot be brought up.
    pub async fn up(&self, name: &str) -> Result<()> {
        let up = LinkUnspec::new_with_name(name).up().build();
        let set = self.handle.link().set(up).execute().await;
        set.with_context(|| format!("cannot bring {name} up"))
    }

    /// Assigns addresses to a device.
    ///
    /// # Errors
    /// If the device does not exist, or an address is refused.
    pub async fn assign(&self, name: &str, addresses: &[Address]) -> Result<()> {
        let index = self.index(name).await?;
        for (address, length) in addresses {
            let mut request = self.handle.address().add(index, *address, *length);
            // The address is unique here: duplicate address detection is not needed.
            let flags = AddressAttribute::Flags(AddressFlags::Nodad);
            request.message_mut().attributes.push(flags);
            let added = request.execute().await;
            added.with_context(|| format!("cannot give {name} the address {address}/{length}"))?;
        }
        Ok(())
    }

    /// Adds a default route via a gateway.
    ///
    /// # Errors
    /// If the kernel refuses the route.
    pub async fn default_route(&self, gateway: IpAddr) -> Result<()> {
        let route = match gateway {
            IpAddr::V4(gateway) => RouteMessageBuilder::<Ipv4Addr>::new()
                .gateway(gateway)
                .build(),
            IpAddr::V6(gateway) => RouteMessageBuilder::<Ipv6Addr>::new()
                .gateway(gateway)
                .build(),
        };
        let added = self.handle.route().add(route).execute().await;
        added.with_context(|| format!("cannot set {gateway} as gateway"))
    }

    /// Adds a route of this type to a table: packets to a prefix leave through a device.
    ///
    /// # Errors
    /// If the kernel refuses the route.
    pub async fn route_by(
        &self,
        name: &str,
        to: Address,
        kind: RouteType,
        table: u32,
    ) -> Result<()> {
        let (address, length) = to;
        let scope = match kind {
            RouteType::Local => RouteScope::Host,
            _ => RouteScope::Link,
        };
        let index = self.index(name).await?;
        let route = match address {
            IpAddr::V4(address) => RouteMessageBuilder::<Ipv4Addr>::new()
                .destination_prefix(address, length)
                .output_interface(index)
                .kind(kind)
                .scope(scope)
                .table_id(table)
                .build(),
            IpAddr::V6(address) => RouteMessageBuilder::<Ipv6Addr>::new()
                .destination_prefix(address, length)
                .output_interface(index)
                .kind(kind)
                .table_id(table)
                .build(),
        };
        let added = self.handle.route().add(route).execute().await;
        added.with_context(|| format!("cannot route {address}/{length} to {name}"))
    }

    /// Adds a rule: routes for a prefix are looked up in this table.
    ///
    /// # Errors
    /// If the kernel refuses the rule.
    pub async fn look_up_in(&self, to: Address, table: u32) -> Result<()> {
        let (address, length) = to;
        let rule = self.handle.rule().add();
        let rule = rule.table_id(table).action(RuleAction::ToTable);
        let added = match address {
            IpAddr::V4(address) => {
                rule.v4()
                    .destination_prefix(address, length)
                    .execute()
                    .await
            }
            IpAddr::V6(address) => {
                rule.v6()
                    .destination_prefix(address, length)
                    .execute()
                    .await
            }
        };
        added.with_context(|| format!("cannot look {address}/{length} up in table {table}"))
    }

    /// Waits until these addresses are local in the namespace of this `Wire`. A worker of the kernel adds IPv6
    /// addresses to the local table.
    ///
    /// # Errors
    /// If an address is not local within the time limit.
    pub async fn await_local(&self, addresses: &[Address]) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let local = addresses::read().await?.host;
            let missing = addresses
                .iter()
                .find(|(address, _)| !local.contains(&single(*address)));
            match missing {
                None => return Ok(()),
                Some((missing, _)) if Instant::now() >= deadline => {
                    bail!("the address {missing} does not become local")
                }
                Some(_) => sleep(Duration::from_millis(1)).await,
            }
        }
    }

    async fn index(&self, name: &str) -> Result<u32> {
        let context = || format!("there is no network device {name}");
        let mut links = self.handle.link().get().match_name(name).execute();
        let link = links.try_next().await.with_context(context)?;
        Ok(link.with_context(context)?.header.index)
    }
}

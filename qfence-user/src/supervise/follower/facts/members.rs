//! The members of the sets, from the facts. Each fact decides itself what an error means.

use std::{collections::BTreeSet, sync::Arc};

use anyhow::{Error, Result, anyhow};
use tokio::{task::yield_now, time::timeout};

use super::{Facts, Reading};
use crate::{
    host::{
        NAT64_PATIENCE, addresses::HostAddresses, host_with, nameservers::Nameservers,
        nat64::Revealed,
    },
    policy::{
        Policy, Prefix, Sets,
        hostset::{WorkloadAddresses, single},
        nameservers::Nameserver,
        set::SetName,
    },
    stored_policy::StoredWorkload,
};

/// More turns of the event loop than pass between the arrival of an answer and the reading. Each looks for what has arrived.
const TURNS: usize = 16;

impl Facts {
    /// The members of the sets, from the host's addresses. `last` are the members published last; for the first policy
    /// there are none, and a fact that cannot be read is an error.
    pub(in super::super) async fn sets_now(
        &mut self,
        policy: &Policy,
        addresses: Reading,
        last: Option<Sets>,
    ) -> Result<Sets> {
        let is_first = last.is_none();
        let known = addresses.as_ref().ok().cloned();
        self.read_file(is_first).await?;
        let before = last.as_ref().map(|last| last.gateways.clone());
        let gateways = self.read_gateways(policy, before).await?;
        let mut sets = match (addresses, last) {
            (Ok(addresses), last) => {
                self.unfollowed = None;
                self.sets_by(&addresses, &gateways, last)
            }
            (Err(error), Some(last)) => {
                self.unfollowed = Some(error.into());
                last
            }
            (Err(error), None) => return Err(error.into()),
        };
        sets.gateways = gateways;
        self.read_workload(&mut sets, is_first).await?;
        self.read_translators(&mut sets, is_first).await;
        self.read_nameservers(&mut sets, policy, known.as_deref(), is_first)
            .await?;
        self.read_devices(&mut sets, policy, is_first).await?;
        Ok(sets)
    }

    /// The members, by these addresses and gateways. While the administrator's file could not be read yet, what it adds to
    /// `last` is not known, so all of that stays. So do the translators until nameservers have answered.
    fn sets_by(
        &self,
        addresses: &HostAddresses,
        gateways: &BTreeSet<Prefix>,
        last: Option<Sets>,
    ) -> Sets {
        let Sets { host, nat64, .. } = last.unwrap_or_default();
        let host = match &self.last_file {
            Some(file) => host_with(&addresses.host, file, gateways),
            None => &addresses.host | &host,
        };
        Sets {
            host,
            many: addresses.many.clone(),
            nat64,
            ..Sets::default()
        }
    }

    /// Adds the addresses of the workload. If they cannot be read, those last known stay.
    async fn read_workload(&mut self, sets: &mut Sets, is_first: bool) -> Result<()> {
        let (Some(network), Some(addresses)) = (self.watcher.workload(), &mut self.workload) else {
            return Ok(());
        };
        self.unknown_workload = None;
        let mut workload = StoredWorkload {
            addresses: WorkloadAddresses::default(),
            nameservers: network
                .nameservers
                .as_ref()
                .map(Nameservers::of_another_namespace),
            pod_loopback: network.pod_loopback,
        };
        match addresses.reading().await {
            Ok(found) => workload.addresses = (*found).clone(),
            Err(error) if is_first => return Err(error.into()),
            Err(error) => {
                self.unknown_workload = Some(error.into());
                if let Some(last) = self.last_workload.take() {
                    workload.addresses = last.addresses;
                }
            }
        }
        sets.pod.clear();
        workload.add_to(sets);
        self.last_workload = Some(workload);
        Ok(())
    }

    /// Adds the host's addresses in the networks of the fence's devices to the nameservers: the host may answer their
    /// guests' questions. While the devices cannot be read there are none.
    async fn read_devices(
        &mut self,
        sets: &mut Sets,
        policy: &Policy,
        is_first: bool,
    ) -> Result<()> {
        let Some(devices) = self.devices.as_mut().filter(|_| policy.names_dns()) else {
            return Ok(());
        };
        match devices.reading().await {
            Ok(found) => {
                let gateways = found.gateways_of(&self.device_names);
                sets.nameservers.extend(gateways.into_iter().map(single));
                Ok(())
            }
            Err(error) if is_first => Err(error.into()),
            // The part of the supervisor that follows the devices reports it.
            Err(_) => Ok(()),
        }
    }

    /// Reads the administrator's file. If it becomes invalid, its last content stays.
    async fn read_file(&mut self, is_first: bool) -> Result<()> {
        self.bad_file = None;
        match self.file.reading().await {
            Ok(file) => self.last_file = Some((*file).clone()),
            Err(error) if is_first => return Err(error.into()),
            Err(error) => self.bad_file = Some(error.into()),
        }
        Ok(())
    }

    /// The gateways. From now on they are followed if `policy` or the file depends on them. `last` are those published
    /// last.
    async fn read_gateways(
        &mut self,
        policy: &Policy,
        last: Option<BTreeSet<Prefix>>,
    ) -> Result<BTreeSet<Prefix>> {
        self.unrouted = None;
        let are_host = self.last_file.as_ref().is_none_or(|file| file.gateway);
        if !policy.names(SetName::Gateway) && !are_host {
            self.gateways = None;
            return Ok(BTreeSet::new());
        }
        let watcher = &self.watcher;
        let gateways = self.gateways.get_or_insert_with(|| watcher.gateways());
        match (gateways.reading().await, last) {
            (Ok(found), _) => Ok((*found).clone()),
            (Err(error), Some(last)) => {
                self.unrouted = Some(error.into());
                Ok(last)
            }
            (Err(error), None) => Err(error.into()),
        }
    }

    /// Adds the NAT64 translators: those of the file, or else those that the nameservers reveal.
    async fn read_translators(&mut self, sets: &mut Sets, is_first: bool) {
        let file = self.last_file.as_ref();
        if let Some(known) = file.and_then(|file| file.nat64.as_ref()) {
            self.nat64 = None;
            sets.nat64.clone_from(known);
            return;
        }
        let watcher = &self.watcher;
        let nat64 = self.nat64.get_or_insert_with(|| watcher.nat64());
        if is_first {
            // What follows keeps this thread busy, so the question must be on its way. Its answer is awaited later.
            let mut asked = watcher.asked_for_nat64();
            let known = async {
                tokio::select! {
                    _ = nat64.reading() => {}
                    _ = asked.wait_for(Option::is_some) => {}
                }
            };
            let _ = timeout(NAT64_PATIENCE, known).await;
        }
        let Some(found) = nat64.latest() else {
            return;
        };
        let found = (*found).clone();
        match self.last_file {
            Some(_) => found.put_in_place_of(&mut sets.nat64),
            // Those in force can be the file's.
            None => found.add_to(&mut sets.nat64),
        }
    }

    /// Waits for the first reading of the translators, until [`NAT64_PATIENCE`] after the question was sent. `None` if
    /// there is none, or the administrator's file names them.
    pub(in super::super) async fn await_translators(&mut self) -> Option<Arc<Revealed>> {
        let asked = *self.watcher.asked_for_nat64().borrow();
        let nat64 = self.nat64.as_mut()?;
        let left = asked.map_or(NAT64_PATIENCE, |asked| {
            NAT64_PATIENCE.saturating_sub(asked.elapsed())
        });
        if timeout(left, nat64.reading()).await.is_err() {
            // This thread may have been busy when the answer came.
            for _ in 0..TURNS {
                yield_now().await;
            }
        }
        nat64.latest()
    }

    /// Adds the nameservers. From now on they are followed if `policy` depends on them.
    async fn read_nameservers(
        &mut self,
        sets: &mut Sets,
        policy: &Policy,
        addresses: Option<&HostAddresses>,
        is_first: bool,
    ) -> Result<()> {
        self.unnamed = None;
        self.ambiguous.clear();
        let last = std::mem::take(&mut sets.nameservers);
        if !policy.names_dns() {
            self.nameservers = None;
            return Ok(());
        }
        let of_workload = self.last_workload.as_ref();
        if let Some(own) = of_workload.and_then(|workload| workload.nameservers.clone()) {
            sets.nameservers = own;
            return Ok(());
        }
        let watcher = &self.watcher;
        let is_added = self.nameservers.is_none() && !is_first;
        let nameservers = self
            .nameservers
            .get_or_insert_with(|| watcher.nameservers());
        // Others follow them already, so the latest reading can be older than that of the command which changed the policy.
        let reading = match is_added {
            true => nameservers.fresh().await,
            false => nameservers.reading().await,
        };
        match reading {
            Ok(found) => {
                if found.is_missing && self.has_seen_file {
                    let path = self.resolv_conf();
                    self.unnamed = Some(anyhow!("warning: {path} is gone"));
                }
                self.has_seen_file |= !found.is_missing;
                match addresses {
                    Some(addresses) => {
                        (sets.nameservers, self.ambiguous) = found.admitted(&addresses.links);
                    }
                    // The links are unknown, so no nameserver is added.
                    None => {
                        let all = found.servers.iter().flat_map(Nameserver::prefixes);
                        sets.nameservers = all.filter(|prefix| last.contains(prefix)).collect();
                    }
                }
                Ok(())
            }
            Err(error) if is_first => Err(error.into()),
            Err(error) => {
                self.has_seen_file = true;
                self.unnamed = Some(Error::from(error).context("error"));
                Ok(())
            }
        }
    }
}

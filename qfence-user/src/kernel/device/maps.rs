//! The maps of a fence's network devices.

use std::{
    net::{IpAddr, Ipv6Addr},
    path::Path,
};

use anyhow::{Context as _, Result};
use aya::{
    Ebpf,
    maps::{HashMap, Map, MapData},
};
use qfence_common::{
    Halves, abi,
    address::from_v4,
    frame::{Device, Gateway, GuestMac, MARKS_EXCEPTIONS},
};

use super::{Wanted, table::DeviceTable};
use crate::kernel::{
    hash::{get, keys, remove},
    load, maps,
};

/// A value without a meaning.
const PRESENT: u32 = 1;

/// The maps of the devices of one fence.
pub struct DeviceMaps {
    devices: DeviceTable,
    macs: HashMap<MapData, GuestMac, u32>,
    learnt: HashMap<MapData, u32, u64>,
    gateways: HashMap<MapData, Gateway, u32>,
}

impl DeviceMaps {
    /// The maps of programs that are being loaded.
    pub(in crate::kernel) fn take(ebpf: &mut Ebpf) -> Result<Self> {
        Self::from(|name| load::take(ebpf, name))
    }

    /// The maps that are pinned in the directory of a fence's links.
    ///
    /// # Errors
    /// If one does not exist or belongs to another version.
    pub fn open(pins: &Path) -> Result<Self> {
        let directory = maps::directory(pins)?;
        Self::from(|name| maps::pinned(&directory, name))
    }

    fn from(mut take: impl FnMut(&str) -> Result<Map>) -> Result<Self> {
        Ok(Self {
            devices: DeviceTable(take(abi::FRAME_DEVICES_MAP)?.try_into()?),
            macs: take(abi::GUEST_MACS_MAP)?.try_into()?,
            learnt: take(abi::LEARNT_MACS_MAP)?.try_into()?,
            gateways: take(abi::GATEWAYS_MAP)?.try_into()?,
        })
    }

    /// Adds a device with all that the programs are to know of it, and these flags. The device itself is last: before it,
    /// its frames are dropped.
    ///
    /// # Errors
    /// If the maps are full.
    pub(super) fn fill(&mut self, wanted: &Wanted, flags: u32) -> Result<()> {
        self.forget(wanted.index)?;
        for mac in &wanted.macs {
            let key = GuestMac {
                device: wanted.index,
                reserved: 0,
                mac: *mac,
            };
            self.macs
                .insert(key, PRESENT, 0)
                .context("cannot add a MAC address")?;
        }
        self.set_gateways(wanted.index, &wanted.gateways)?;
        let added = self.devices.set(Device {
            index: wanted.index,
            slot: wanted.slot,
            flags,
            reserved: 0,
            mac: wanted.macs.first().copied().unwrap_or_default(),
        });
        added.context("cannot add a device")
    }

    /// Removes a device and all that the programs know of it.
    ///
    /// # Errors
    /// If the kernel fails to.
    pub(super) fn forget(&mut self, index: u32) -> Result<()> {
        self.devices.remove(index)?;
        remove(&mut self.learnt, &index)?;
        for key in keys(&self.macs, abi::GUEST_MACS)? {
            if key.device == index {
                remove(&mut self.macs, &key)?;
            }
        }
        for key in keys(&self.gateways, abi::GATEWAYS)? {
            if key.device == index {
                remove(&mut self.gateways, &key)?;
            }
        }
        Ok(())
    }

    /// Replaces the host's addresses in the network of a device's guest.
    ///
    /// # Errors
    /// If the map is full. Some addresses may have been added then, and none was removed.
    pub fn set_gateways(&mut self, index: u32, addresses: &[IpAddr]) -> Result<()> {
        let wanted: Vec<Gateway> = addresses
            .iter()
            .map(|address| gateway(index, *address))
            .collect();
        for key in &wanted {
            self.gateways
                .insert(key, PRESENT, 0)
                .context("cannot add an address of the host")?;
        }
        for key in keys(&self.gateways, abi::GATEWAYS)? {
            if key.device == index && !wanted.contains(&key) {
                remove(&mut self.gateways, &key)?;
            }
        }
        Ok(())
    }

    /// Changes the flags of a device, and nothing else that the programs know of it. [`MARKS_EXCEPTIONS`] stays as it is.
    ///
    /// # Errors
    /// If the kernel fails to.
    pub fn set_flags(&mut self, index: u32, slot: u32, flags: u32) -> Result<()> {
        let before = self.devices.get(index)?.unwrap_or_default();
        let changed = self.devices.set(Device {
            index,
            slot,
            flags: flags | before.flags & MARKS_EXCEPTIONS,
            ..before
        });
        changed.context("cannot change a device")
    }

    /// The MAC address that the first frame of a device's guest determined, as a number; `None` before the first frame.
    ///
    /// # Errors
    /// If the map cannot be read.
    pub fn learnt_mac(&self, index: u32) -> Result<Option<u64>> {
        get(&self.learnt, &index)
    }

    /// The host's addresses in the guests' networks, with the index of the device.
    ///
    /// # Errors
    /// If the map cannot be read.
    pub fn gateways(&self) -> Result<Vec<(u32, IpAddr)>> {
        let keys = keys(&self.gateways, abi::GATEWAYS)?.into_iter();
        Ok(keys
            .map(|key| {
                let address = Ipv6Addr::from(key.address.address());
                (key.device, IpAddr::V6(address).to_canonical())
            })
            .collect())
    }

    /// The flags of a device; `None` if it is not known.
    ///
    /// # Errors
    /// If the map cannot be read.
    pub fn flags(&self, index: u32) -> Result<Option<u32>> {
        Ok(self.devices.get(index)?.map(|device| device.flags))
    }

    /// The indices of the devices.
    ///
    /// # Errors
    /// If the map cannot be read.
    pub fn indices(&self) -> Result<Vec<u32>> {
        self.devices.indices()
    }
}

fn gateway(device: u32, address: IpAddr) -> Gateway {
    let address = match address {
        IpAddr::V4(address) => from_v4(address.octets()),
        IpAddr::V6(address) => address.octets(),
    };
    Gateway {
        address: Halves::of(address),
        device,
        reserved: 0,
    }
}

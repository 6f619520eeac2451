//! The maps of a fence's network devices.

use std::{net::IpAddr, path::Path};

use anyhow::{Context as _, Result};
use aya::{
    Ebpf, Pod,
    maps::{HashMap, Map, MapData, MapError},
};
use qfence_common::{
    Halves, abi,
    address::from_v4,
    frame::{Device, Gateway, GuestMac},
};

use super::Wanted;
use crate::kernel::{load, maps};

/// A value without a meaning.
const PRESENT: u32 = 1;

/// The maps of the devices of one fence.
pub struct DeviceMaps {
    devices: HashMap<MapData, u32, Device>,
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
            devices: take(abi::FRAME_DEVICES_MAP)?.try_into()?,
            macs: take(abi::GUEST_MACS_MAP)?.try_into()?,
            learnt: take(abi::LEARNT_MACS_MAP)?.try_into()?,
            gateways: take(abi::GATEWAYS_MAP)?.try_into()?,
        })
    }

    /// Adds a device with all that the programs are to know of it. The device itself is last: before it, its frames are
    /// dropped.
    ///
    /// # Errors
    /// If the maps are full.
    pub(super) fn fill(&mut self, wanted: &Wanted) -> Result<()> {
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
        let device = Device {
            slot: wanted.slot,
            flags: wanted.flags,
        };
        self.devices
            .insert(wanted.index, device, 0)
            .context("cannot add a device (a fence has room for 64)")
    }

    /// Removes a device and all that the programs know of it.
    ///
    /// # Errors
    /// If the kernel fails to.
    pub(super) fn forget(&mut self, index: u32) -> Result<()> {
        remove(&mut self.devices, &index)?;
        remove(&mut self.learnt, &index)?;
        for key in keys(&self.macs)? {
            if key.device == index {
                remove(&mut self.macs, &key)?;
            }
        }
        for key in keys(&self.gateways)? {
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
        for key in keys(&self.gateways)? {
            if key.device == index && !wanted.contains(&key) {
                remove(&mut self.gateways, &key)?;
            }
        }
        Ok(())
    }

    /// Changes the flags of a device, and nothing else that the programs know of it.
    ///
    /// # Errors
    /// If the kernel fails to.
    pub fn set_flags(&mut self, index: u32, slot: u32, flags: u32) -> Result<()> {
        let changed = self.devices.insert(index, Device { slot, flags }, 0);
        changed.context("cannot change a device")
    }

    /// The MAC address that the first frame of a device's guest determined, as a number; `None` before the first frame.
    ///
    /// # Errors
    /// If the map cannot be read.
    pub fn learnt_mac(&self, index: u32) -> Result<Option<u64>> {
        match self.learnt.get(&index, 0) {
            Ok(mac) => Ok(Some(mac)),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(error) => Err(error).context("cannot read the MAC address of a guest"),
        }
    }

    /// The indices of the devices.
    ///
    /// # Errors
    /// If the map cannot be read.
    pub fn indices(&self) -> Result<Vec<u32>> {
        keys(&self.devices)
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

fn keys<K: Pod, V: Pod>(map: &HashMap<MapData, K, V>) -> Result<Vec<K>> {
    // Programs add entries meanwhile, and the kernel begins again where one was removed.
    map.keys()
        .take(2 * abi::GATEWAYS as usize)
        .collect::<Result<_, _>>()
        .context("cannot read a map of the devices")
}

fn remove<K: Pod, V: Pod>(map: &mut HashMap<MapData, K, V>, key: &K) -> Result<()> {
    match map.remove(key) {
        Ok(()) | Err(MapError::KeyNotFound) => Ok(()),
        Err(error) => Err(error).context("cannot remove an entry of a map of the devices"),
    }
}

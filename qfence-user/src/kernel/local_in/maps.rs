//! The maps of a pair.

use anyhow::{Context as _, Result, bail, ensure};
use aya::maps::{Array, HashMap, Map, MapData};
use qfence_common::local_in::{
    DROPPED, DROPPED_MAP, Dropped, Filter, GUARDED_DEVICES, GUARDED_DEVICES_MAP,
    GUARDED_FILTER_MAP, GUARDED_MACS, GUARDED_MACS_MAP, Guarded, MEMBERS, MEMBERS_MAP, Member,
    NAME_BYTES, filter_bit,
};

use crate::{
    base::mac::Mac,
    kernel::hash::{get, keys, remove},
};

/// The names of all maps.
pub(super) const NAMES: [&str; 5] = [
    MEMBERS_MAP,
    GUARDED_DEVICES_MAP,
    GUARDED_MACS_MAP,
    GUARDED_FILTER_MAP,
    DROPPED_MAP,
];

const NOT_CHANGED: &str = "cannot change a map of the second layer for frames";

/// `BPF_NOEXIST`.
const ONLY_NEW: u64 = 1;

/// The maps of the pair of one network namespace.
pub(super) struct Maps {
    members: HashMap<MapData, u32, Member>,
    devices: HashMap<MapData, u32, Guarded>,
    macs: HashMap<MapData, u64, Guarded>,
    filter: Array<MapData, Filter>,
    dropped: HashMap<MapData, Dropped, u64>,
}

impl Maps {
    pub(super) fn from(mut take: impl FnMut(&str) -> Result<Map>) -> Result<Self> {
        Ok(Self {
            members: take(MEMBERS_MAP)?.try_into()?,
            devices: take(GUARDED_DEVICES_MAP)?.try_into()?,
            macs: take(GUARDED_MACS_MAP)?.try_into()?,
            filter: take(GUARDED_FILTER_MAP)?.try_into()?,
            dropped: take(DROPPED_MAP)?.try_into()?,
        })
    }

    /// The fences: number and name.
    pub(super) fn members(&self) -> Result<Vec<(u32, String)>> {
        let mut members = Vec::new();
        for slot in keys(&self.members, MEMBERS)? {
            if let Some(member) = get(&self.members, &slot)? {
                members.push((slot, name_of(&member)));
            }
        }
        Ok(members)
    }

    /// Adds a fence under a number; nothing happens if it is there already.
    pub(super) fn add(&mut self, slot: u32, fence: &str) -> Result<()> {
        let mut name = [0; NAME_BYTES];
        ensure!(fence.len() <= name.len(), "the fence's name is too long");
        for (place, byte) in name.iter_mut().zip(fence.bytes()) {
            *place = byte;
        }
        match self
            .members
            .insert(slot, Member { drops: 0, name }, ONLY_NEW)
        {
            Err(error) => match get(&self.members, &slot)? {
                Some(member) if member.name == name => Ok(()),
                _ => Err(error).context(NOT_CHANGED),
            },
            Ok(()) => Ok(()),
        }
    }

    /// The devices and MAC addresses by which the guests of a fence are recognised.
    pub(super) fn guarded(&self, slot: u32) -> Result<(Vec<u32>, Vec<u64>)> {
        let mut devices = Vec::new();
        for key in keys(&self.devices, GUARDED_DEVICES)? {
            if get(&self.devices, &key)?.is_some_and(|guest| guest.slot == slot) {
                devices.push(key);
            }
        }
        let mut macs = Vec::new();
        for key in keys(&self.macs, GUARDED_MACS)? {
            if get(&self.macs, &key)?.is_some_and(|guest| guest.slot == slot) {
                macs.push(key);
            }
        }
        Ok((devices, macs))
    }

    /// The MAC addresses of a guest.
    pub(super) fn macs_of(&self, guest: Guarded) -> Result<Vec<u64>> {
        let mut macs = Vec::new();
        for key in keys(&self.macs, GUARDED_MACS)? {
            if get(&self.macs, &key)? == Some(guest) {
                macs.push(key);
            }
        }
        Ok(macs)
    }

    /// Removes a fence, and everything by which its guests are recognised. Its number is last, so that nobody gets it
    /// before.
    pub(super) fn remove(&mut self, slot: u32) -> Result<()> {
        let (devices, macs) = self.guarded(slot)?;
        for index in devices {
            remove(&mut self.devices, &index)?;
        }
        for mac in macs {
            remove(&mut self.macs, &mac)?;
        }
        for key in keys(&self.dropped, DROPPED)? {
            if key.slot == slot {
                remove(&mut self.dropped, &key)?;
            }
        }
        remove(&mut self.members, &slot)
    }

    /// Drops what enters by a device. To be called under the lock.
    ///
    /// # Errors
    /// If there is no room, or the device is another fence's, whose entry stays.
    pub(super) fn guard_device(&mut self, index: u32, guest: Guarded) -> Result<()> {
        if let Some(fence) = self.other_owner(get(&self.devices, &index)?, guest)? {
            bail!("the network device with the index {index} is of the fence {fence} already");
        }
        self.open_filter(index.into())?;
        self.devices.insert(index, guest, 0).context(NOT_CHANGED)
    }

    /// Drops what has a MAC address as its source. To be called under the lock.
    ///
    /// # Errors
    /// If there is no room, or a guest in another fence has the address. Its entry stays.
    pub(super) fn guard_mac(&mut self, mac: u64, guest: Guarded) -> Result<()> {
        if let Some(fence) = self.other_owner(get(&self.macs, &mac)?, guest)? {
            let mac = Mac::from_number(mac);
            bail!(
                "a guest in the fence {fence} has the MAC address {mac} already; give each guest an address of its own"
            );
        }
        self.open_filter(mac)?;
        self.macs.insert(mac, guest, 0).context(NOT_CHANGED)
    }

    /// Has the program look for a device or a MAC address. To be called under the lock, before it is in its map.
    fn open_filter(&mut self, guarded: u64) -> Result<()> {
        let mut filter = self.filter.get(&0, 0).context(NOT_CHANGED)?;
        let (index, mask) = filter_bit(guarded);
        *filter.get_mut(index).context(NOT_CHANGED)? |= mask;
        self.filter.set(0, filter, 0).context(NOT_CHANGED)
    }

    /// The name of the fence of an entry, if it is another one than that of the guest.
    fn other_owner(&self, found: Option<Guarded>, guest: Guarded) -> Result<Option<String>> {
        match found {
            Some(found) if found.slot != guest.slot => {
                let member = get(&self.members, &found.slot)?;
                Ok(member.map(|member| name_of(&member)))
            }
            _ => Ok(None),
        }
    }

    /// Forgets a device of a fence, and the MAC addresses of its guest.
    pub(super) fn unguard(&mut self, guest: Guarded) -> Result<()> {
        if get(&self.devices, &guest.device)? == Some(guest) {
            remove(&mut self.devices, &guest.device)?;
        }
        for mac in self.macs_of(guest)? {
            remove(&mut self.macs, &mac)?;
        }
        Ok(())
    }

    /// The number of packets that were dropped because of a fence.
    pub(super) fn drops(&self, slot: u32) -> Result<u64> {
        let member = get(&self.members, &slot)?;
        Ok(member
            .context("the fence is no member of the second layer for frames any more")?
            .drops)
    }

    /// The number of packets in the entries of a fence.
    pub(super) fn pending(&self, slot: u32) -> Result<u64> {
        let mut pending = 0;
        for key in keys(&self.dropped, DROPPED)? {
            if key.slot == slot {
                pending += get(&self.dropped, &key)?.unwrap_or_default();
            }
        }
        Ok(pending)
    }

    /// Takes out the entries of these fences.
    pub(super) fn take_dropped(&mut self, slots: &[u32]) -> Result<Vec<(Dropped, u64)>> {
        let mut taken = Vec::new();
        for key in keys(&self.dropped, DROPPED)? {
            if !slots.contains(&key.slot) {
                continue;
            }
            // A packet that is counted in between is missing here, and not in the total.
            if let Some(count) = get(&self.dropped, &key)? {
                remove(&mut self.dropped, &key)?;
                taken.push((key, count));
            }
        }
        Ok(taken)
    }
}

fn name_of(member: &Member) -> String {
    let end = member.name.iter().position(|byte| *byte == 0);
    let bytes = member.name.get(..end.unwrap_or(NAME_BYTES));
    String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned()
}

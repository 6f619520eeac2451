//! What a fence has in the pair of a network namespace.

use std::{
    collections::BTreeMap,
    fs::File,
    io,
    net::Ipv6Addr,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
};

use anyhow::{Context as _, Result, ensure};
use qfence_common::{
    Address,
    local_in::{Dropped, Guarded, NO_SLOT},
};

use super::{
    maps::Maps,
    nft::{Guard, Table},
    pair,
    place::{self, Place},
};

/// A fence in the pair of a network namespace.
pub struct Membership {
    place: Place,
    maps: Maps,
    slot: u32,
    /// How many drops were returned so far, as entries or as lost.
    told: u64,
    /// The links, open, so that they outlive their pins.
    links: Vec<OwnedFd>,
    /// The network namespace.
    netns: OwnedFd,
    /// Whether a table of nftables takes the place of the links.
    has_table: bool,
}

/// Packets that were dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drop {
    /// The address of the host, after all translation.
    pub address: Address,
    /// The IP protocol.
    pub protocol: u32,
    /// The destination port; 0 if there is none.
    pub port: u16,
    /// The index of the guest's device, if the packet showed it.
    pub device: Option<u32>,
    /// The number of packets.
    pub count: u64,
}

/// What was dropped since the last time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Drained {
    /// The packets whose destination is known.
    pub drops: Vec<Drop>,
    /// The number of the others.
    pub lost: u64,
}

impl Membership {
    pub(super) fn new(
        place: Place,
        maps: Maps,
        slot: u32,
        netns: Option<BorrowedFd<'_>>,
    ) -> Result<Self> {
        let mut membership = Self {
            links: pair::open_links(&place)?,
            netns: open(netns).context("cannot open the network namespace")?,
            has_table: place.nft().exists(),
            place,
            maps,
            slot,
            told: 0,
        };
        // What is among the entries is still to be returned.
        let total = membership.total()?;
        membership.told = total.saturating_sub(membership.maps.pending(slot)?);
        Ok(membership)
    }

    /// The table of nftables, if there is one.
    fn table(&self) -> Option<Table<'_>> {
        self.has_table.then(|| Table {
            netns: Some(self.netns.as_fd()),
        })
    }

    /// The number of packets that were dropped because of the fence so far.
    fn total(&self) -> Result<u64> {
        match self.table() {
            Some(table) => table.drops(self.slot),
            None => self.maps.drops(self.slot),
        }
    }

    /// The number of the fence, which the tags of its guests' frames have.
    #[must_use]
    pub fn slot(&self) -> u32 {
        self.slot
    }

    /// Drops what enters by a device and is no exception.
    ///
    /// # Errors
    /// If there is no room, or another fence guards the device.
    pub fn guard(&mut self, index: u32) -> Result<()> {
        let _lock = place::lock(self.place.parent())?;
        let guest = self.guest(index);
        self.maps.guard_device(index, guest)?;
        self.table()
            .map_or(Ok(()), |table| table.guard(Guard::Device(self.slot, index)))
    }

    /// Drops what has the MAC address of a device's guest as its source, and is no exception.
    ///
    /// # Errors
    /// If there is no room, no guest can have this address, or another fence guards it.
    pub fn guard_mac(&mut self, index: u32, mac: u64) -> Result<()> {
        ensure!(
            mac != 0 && mac >> 48 == 0 && mac >> 40 & 1 == 0,
            "no guest can have the MAC address {mac:#x}"
        );
        let _lock = place::lock(self.place.parent())?;
        let guest = self.guest(index);
        self.maps.guard_mac(mac, guest)?;
        self.table()
            .map_or(Ok(()), |table| table.guard(Guard::Mac(self.slot, mac)))
    }

    /// Forgets a device, and the MAC addresses of its guest.
    ///
    /// # Errors
    /// If the kernel fails to.
    pub fn unguard(&mut self, index: u32) -> Result<()> {
        let _lock = place::lock(self.place.parent())?;
        let guest = self.guest(index);
        if let Some(table) = self.table() {
            for mac in self.maps.macs_of(guest)? {
                table.unguard(Guard::Mac(self.slot, mac))?;
            }
            table.unguard(Guard::Device(self.slot, index))?;
        }
        self.maps.unguard(guest)
    }

    /// Takes what was dropped because of this fence since the last time, and because of a mark alone, which does not show
    /// whose packet it is.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn drain(&mut self) -> Result<Drained> {
        // The total first: everything in it is among the entries by now, or lost.
        let total = self.total()?;
        // Another fence has put back the table, which counts anew.
        if self.has_table && total < self.told {
            self.told = 0;
        }
        let taken = self.maps.take_dropped(&[self.slot, NO_SLOT])?;
        let mut drops = BTreeMap::new();
        for (key, count) in taken {
            if key.slot == self.slot {
                self.told += count;
            }
            *drops.entry(sorted(&key)).or_insert(0) += count;
        }
        let lost = total.saturating_sub(self.told);
        self.told += lost;
        Ok(Drained {
            drops: drops.into_iter().map(drop_of).collect(),
            lost,
        })
    }

    /// Whether the pair is as it was made: its links or its table of nftables, and its maps, are where they were, and the
    /// links are attached.
    ///
    /// # Errors
    /// If it is unknown.
    pub fn is_whole(&self) -> Result<bool> {
        pair::is_whole_and_guards(&self.place, Some(self.netns.as_fd()))
    }

    /// Puts back what somebody removed of the pair.
    ///
    /// # Errors
    /// If that fails. Then what the host's rules send to itself is not judged.
    pub fn mend(&mut self) -> Result<()> {
        let _lock = place::lock(self.place.parent())?;
        let netns = self.netns.as_fd();
        if pair::mend(&self.place, netns, &mut self.links, &self.maps)? {
            self.told = 0;
        }
        Ok(())
    }

    /// Removes the fence from the pair, and the pair with its last member.
    ///
    /// # Errors
    /// If the kernel fails to.
    pub fn leave(mut self) -> Result<()> {
        let _lock = place::lock(self.place.parent())?;
        pair::remove_member(&self.place, &mut self.maps, self.slot)?;
        pair::remove_if_empty(&self.place, &self.maps)
    }

    fn guest(&self, device: u32) -> Guarded {
        Guarded {
            slot: self.slot,
            device,
        }
    }
}

/// Opens a network namespace once more.
fn open(netns: Option<BorrowedFd<'_>>) -> io::Result<OwnedFd> {
    match netns {
        Some(netns) => netns.try_clone_to_owned(),
        None => Ok(File::open("/proc/thread-self/ns/net")?.into()),
    }
}

/// A key in an order, without the fence.
fn sorted(key: &Dropped) -> (u32, Ipv6Addr, u32, u16) {
    let address = Ipv6Addr::from(key.address.address());
    (key.device, address, key.protocol, key.port)
}

fn drop_of(((device, address, protocol, port), count): ((u32, Ipv6Addr, u32, u16), u64)) -> Drop {
    Drop {
        address: address.octets(),
        protocol,
        port,
        device: (device != 0).then_some(device),
        count,
    }
}

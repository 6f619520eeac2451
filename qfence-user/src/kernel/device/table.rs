//! The table of a fence's network devices.

use anyhow::{Context as _, Result};
use aya::maps::{Array, MapData};
use qfence_common::frame::{Device, place};

/// The table. Programs look for a device at its [places](place) one after the other, and do not stop at a free one, so an
/// entry can be removed without moving others.
pub(super) struct DeviceTable(pub(super) Array<MapData, Device>);

impl DeviceTable {
    /// Returns the entry of a device; `None` if it has none.
    pub(super) fn get(&self, index: u32) -> Result<Option<Device>> {
        let found = self.find(|device| device.index == index, index)?;
        Ok(found.map(|(_, device)| device))
    }

    /// Adds a device, or replaces its entry.
    ///
    /// # Errors
    /// If the table is full.
    pub(super) fn set(&mut self, device: Device) -> Result<()> {
        let index = device.index;
        let at = match self.find(|device| device.index == index, index)? {
            Some((at, _)) => at,
            None => {
                let free = self.find(|device| device.index == 0, index)?;
                let full = || format!("a fence has room for {} devices", self.0.len());
                free.with_context(full)?.0
            }
        };
        self.put(at, device)
    }

    /// Removes a device. A missing one is no error.
    pub(super) fn remove(&mut self, index: u32) -> Result<()> {
        match self.find(|device| device.index == index, index)? {
            Some((at, _)) => self.put(at, Device::default()),
            None => Ok(()),
        }
    }

    /// Returns the indices of all devices.
    pub(super) fn indices(&self) -> Result<Vec<u32>> {
        let mut indices = Vec::new();
        for at in 0..self.0.len() {
            match self.at(at)?.index {
                0 => {}
                index => indices.push(index),
            }
        }
        Ok(indices)
    }

    /// Finds the first entry in the order of the places for an index.
    fn find(&self, is_it: impl Fn(&Device) -> bool, index: u32) -> Result<Option<(u32, Device)>> {
        // In a fence without devices the table has one entry.
        for step in 0..self.0.len() {
            let at = place(index, step) % self.0.len();
            let device = self.at(at)?;
            if is_it(&device) {
                return Ok(Some((at, device)));
            }
        }
        Ok(None)
    }

    fn at(&self, at: u32) -> Result<Device> {
        self.0.get(&at, 0).context("cannot read a map")
    }

    fn put(&mut self, at: u32, device: Device) -> Result<()> {
        let written = self.0.set(at, device, 0);
        written.context("cannot write a map")
    }
}

#[cfg(test)]
mod tests {
    use aya::EbpfLoader;
    use qfence_common::abi;

    use super::{
        super::super::{OBJECT, load::take},
        *,
    };

    fn table() -> DeviceTable {
        let mut ebpf = EbpfLoader::new().btf(None).load(OBJECT).unwrap();
        let table = take(&mut ebpf, abi::FRAME_DEVICES_MAP).unwrap();
        DeviceTable(table.try_into().unwrap())
    }

    fn device(index: u32, slot: u32) -> Device {
        Device {
            index,
            slot,
            ..Device::default()
        }
    }

    /// Needs root.
    #[test]
    fn devices_with_the_same_places_are_all_found() {
        let mut table = table();
        for index in [5, 69, 133] {
            table.set(device(index, index)).unwrap();
        }
        table.set(device(69, 7)).unwrap();
        assert_eq!(table.indices().unwrap(), [5, 69, 133]);
        table.remove(5).unwrap();
        table.remove(5).unwrap();
        assert_eq!(table.get(5).unwrap(), None);
        assert_eq!(table.get(69).unwrap(), Some(device(69, 7)));
        assert_eq!(table.get(133).unwrap(), Some(device(133, 133)));
        table.set(device(197, 197)).unwrap();
        assert_eq!(table.indices().unwrap(), [197, 69, 133]);
    }

    /// Needs root.
    #[test]
    fn a_table_has_room_for_64() {
        let mut table = table();
        for index in 1..=64 {
            table.set(device(3 * index, 1)).unwrap();
        }
        let full = table.set(device(4, 1)).unwrap_err();
        assert_eq!(full.to_string(), "a fence has room for 64 devices");
        table.set(device(192, 2)).unwrap();
        table.remove(3).unwrap();
        table.set(device(4, 1)).unwrap();
        let mut indices = table.indices().unwrap();
        indices.sort_unstable();
        assert_eq!(indices.len(), 64);
        assert_eq!(indices[0], 4);
    }
}

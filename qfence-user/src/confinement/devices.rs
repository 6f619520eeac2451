//! The devices that a command keeps under the closure of devices.

use std::collections::BTreeMap;

use qfence_common::device::{ACCESSES, ANY_MINOR, DeviceKey, FORBIDDEN, KIND_CHARACTER};

/// Devices that no command can do harm with: null, zero, full, random, urandom, the terminal that it has, and KVM, for
/// which the permissions of /dev/kvm decide (Documentation/admin-guide/devices.txt, include/linux/miscdevice.h).
const HARMLESS: [(u32, u32); 7] = [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (10, 232)];

/// The first and the last major number of the slaves of pseudo-terminals.
const TERMINALS: [u32; 2] = [136, 143];

/// The devices that may be opened, with the accesses: bits of [`ACCESSES`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Devices(BTreeMap<DeviceKey, u32>);

impl Devices {
    /// The devices that every command keeps.
    #[must_use]
    pub fn harmless() -> Self {
        let mut devices = Self(BTreeMap::new());
        for (major, minor) in HARMLESS {
            devices.allow_character(major, minor);
        }
        devices
    }

    /// Allows these accesses to a device.
    pub fn allow(&mut self, device: DeviceKey, accesses: u32) {
        *self.0.entry(device).or_default() |= accesses & ACCESSES;
    }

    /// Allows these accesses to all slaves of pseudo-terminals, also to later ones.
    pub fn allow_terminals(&mut self, accesses: u32) {
        for major in TERMINALS[0]..=TERMINALS[1] {
            let device = DeviceKey {
                kind: KIND_CHARACTER,
                major,
                minor: ANY_MINOR,
            };
            self.allow(device, accesses);
        }
    }

    /// Allows the devices that give a guest a network other than QEMU's own sockets.
    pub fn allow_networks(&mut self) {
        for device in FORBIDDEN {
            self.allow_character(device.major, device.minor);
        }
    }

    fn allow_character(&mut self, major: u32, minor: u32) {
        let device = DeviceKey {
            kind: KIND_CHARACTER,
            major,
            minor,
        };
        self.allow(device, ACCESSES);
    }

    /// The devices, with the accesses.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (DeviceKey, u32)> {
        self.0.iter().map(|(device, accesses)| (*device, *accesses))
    }
}

#[cfg(test)]
mod tests {
    use qfence_common::device::{READ, WRITE};

    use super::*;

    #[test]
    fn accesses_add_up() {
        let disk = DeviceKey {
            kind: 1,
            major: 8,
            minor: 0,
        };
        let mut devices = Devices::harmless();
        assert_eq!(devices.iter().count(), HARMLESS.len());
        devices.allow(disk, READ);
        devices.allow(disk, WRITE | 1);
        assert!(devices.iter().any(|each| each == (disk, ACCESSES)));
        devices.allow_terminals(ACCESSES);
        devices.allow_networks();
        assert_eq!(devices.iter().count(), HARMLESS.len() + 1 + 8 + 3);
    }
}

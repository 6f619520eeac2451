//! Fills the maps of the closures that programs enforce. They do not change while the fence exists, and are not pinned.

use anyhow::{Context as _, Result, ensure};
use aya::{
    Ebpf,
    maps::{
        Array, HashMap, MapData,
        lpm_trie::{Key, LpmTrie},
    },
};
use qfence_common::{
    abi,
    device::DeviceKey,
    port::{bit, word_index},
    unix::{Name, NameRule, ROOM, WORDS},
};

use super::load::take;
use crate::confinement::{Devices, Enforced, Listener, NameRules};

/// The number of words of the map of ports in a fence that does not need it.
const NO_PORTS: u32 = 1;

/// The number of words of the map of ports.
pub(super) fn ports(enforced: &Enforced) -> u32 {
    match enforced.listen {
        Some(_) => qfence_common::port::WORDS,
        None => NO_PORTS,
    }
}

/// Fills the maps. The value returned keeps them open, which is needed until the programs are loaded.
///
/// # Errors
/// If there are more rules or devices than room, or the kernel rejects one.
pub(super) fn fill(ebpf: &mut Ebpf, enforced: &Enforced) -> Result<impl Send + use<>> {
    let mut names: LpmTrie<MapData, Name, NameRule> = take(ebpf, abi::NAMES_MAP)?.try_into()?;
    let mut ports: Array<MapData, u64> = take(ebpf, abi::PORTS_MAP)?.try_into()?;
    let mut devices: HashMap<MapData, DeviceKey, u32> = take(ebpf, abi::DEVICES_MAP)?.try_into()?;
    if let Some(rules) = &enforced.names {
        fill_names(&mut names, rules)?;
    }
    for listener in enforced.listen.iter().flatten() {
        fill_ports(&mut ports, listener)?;
    }
    if let Some(allowed) = &enforced.devices {
        fill_devices(&mut devices, allowed)?;
    }
    Ok((names, ports, devices))
}

fn fill_names(map: &mut LpmTrie<MapData, Name, NameRule>, rules: &NameRules) -> Result<()> {
    let context = "cannot fill the map of names of Unix sockets";
    ensure!(
        rules.iter().len() <= abi::NAMES as usize,
        "{context}: {} rules, and at most {} are possible",
        rules.iter().len(),
        abi::NAMES
    );
    for (begin, rule) in rules.iter() {
        // No name is longer than the room, so the rest would apply to none.
        let begin = begin.get(..ROOM).unwrap_or(begin);
        map.insert(&key(begin)?, rule, 0).context(context)?;
    }
    Ok(())
}

/// The key of the names that begin with these bytes.
fn key(begin: &[u8]) -> Result<Key<Name>> {
    let mut name = [0; WORDS];
    for (word, bytes) in name.iter_mut().zip(begin.chunks(8)) {
        let mut whole = [0; 8];
        whole[..bytes.len()].copy_from_slice(bytes);
        *word = u64::from_ne_bytes(whole);
    }
    Ok(Key::new(8 * u32::try_from(begin.len())?, name))
}

fn fill_ports(map: &mut Array<MapData, u64>, listener: &Listener) -> Result<()> {
    let context = "cannot fill the map of local ports";
    for port in listener.first..=listener.last {
        let index = word_index(listener.protocol, port)
            .context("only ports of TCP and UDP can be allowed")?;
        let word = map.get(&index, 0).context(context)?;
        map.set(index, word | bit(port), 0).context(context)?;
    }
    Ok(())
}

fn fill_devices(map: &mut HashMap<MapData, DeviceKey, u32>, devices: &Devices) -> Result<()> {
    let context = "cannot fill the map of devices";
    ensure!(
        devices.iter().len() <= abi::DEVICES as usize,
        "{context}: {} devices, and at most {} are possible",
        devices.iter().len(),
        abi::DEVICES
    );
    for (device, accesses) in devices.iter() {
        map.insert(device, accesses, 0).context(context)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_the_bytes_and_their_number_of_bits() {
        let key = key(b"/run/dbus/").unwrap();
        let (bits, name) = (key.prefix_len(), key.data());
        assert_eq!(bits, 80);
        assert_eq!(name[0].to_ne_bytes(), *b"/run/dbu");
        assert_eq!(name[1].to_ne_bytes(), *b"s/\0\0\0\0\0\0");
    }
}

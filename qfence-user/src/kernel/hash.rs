//! Entries of hash maps that others change at the same time.

use anyhow::{Context as _, Result};
use aya::{
    Pod,
    maps::{HashMap, MapData, MapError},
};
use nix::errno::Errno;

/// The keys of a map, at most `most`. The kernel begins again where an entry was removed meanwhile, so their number needs a
/// limit, and a key can be returned twice.
pub(super) fn keys<K: Pod, V: Pod>(map: &HashMap<MapData, K, V>, most: u32) -> Result<Vec<K>> {
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    let keys = map.keys().take(most.saturating_mul(2));
    keys.collect::<Result<_, _>>().context("cannot read a map")
}

/// The value of a key; `None` if there is none.
pub(super) fn get<K: Pod, V: Pod>(map: &HashMap<MapData, K, V>, key: &K) -> Result<Option<V>> {
    match map.get(key, 0) {
        Ok(value) => Ok(Some(value)),
        Err(error) if is_missing(&error) => Ok(None),
        Err(error) => Err(error).context("cannot read an entry of a map"),
    }
}

/// Only an entry that exists is written (linux/bpf.h).
const BPF_EXIST: u64 = 2;

/// Replaces the value of a key. A missing key stays missing, and is no error: another process has removed it meanwhile.
pub(super) fn replace<K: Pod, V: Pod>(
    map: &mut HashMap<MapData, K, V>,
    key: &K,
    value: &V,
) -> Result<()> {
    match map.insert(key, value, BPF_EXIST) {
        Err(error) if !is_missing(&error) => Err(error).context("cannot change an entry of a map"),
        _ => Ok(()),
    }
}

/// Removes a key. A missing key is no error.
pub(super) fn remove<K: Pod, V: Pod>(map: &mut HashMap<MapData, K, V>, key: &K) -> Result<()> {
    match map.remove(key) {
        Err(error) if !is_missing(&error) => Err(error).context("cannot remove an entry of a map"),
        _ => Ok(()),
    }
}

/// aya reports a missing key as such when it is read, and as the error of the call when it is removed.
fn is_missing(error: &MapError) -> bool {
    match error {
        MapError::KeyNotFound => true,
        MapError::SyscallError(error) => {
            error.io_error.raw_os_error() == Some(Errno::ENOENT as i32)
        }
        _ => false,
    }
}

//! Elements of maps, by bpf(2). Fills a new map in one call; aya makes one call for each element.

use std::{ffi::c_long, io, os::fd::AsFd, ptr};

use aya::{Pod, maps::MapData};

use super::syscall::{Attributes, bpf, number};

/// `ENOTSUPP` of linux/errno.h, which no user-space header has: the map's type takes no batches.
const NOT_SUPPORTED: i32 = 524;

/// The part of `union bpf_attr` that `BPF_MAP_UPDATE_BATCH` uses.
#[repr(C)]
#[derive(Default)]
struct UpdateBatch {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

const _: () = assert!(size_of::<UpdateBatch>() == 56);

// SAFETY: as in linux/bpf.h. The kernel reads `count` keys and values of the map's sizes, which `fill` provides.
unsafe impl Attributes for UpdateBatch {
    /// `BPF_MAP_UPDATE_BATCH`.
    const COMMAND: c_long = 26;
}

/// The part of `union bpf_attr` that the commands for one element use.
#[repr(C)]
#[derive(Default)]
pub(super) struct Element<const COMMAND: c_long> {
    map_fd: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// `BPF_MAP_LOOKUP_ELEM`.
pub(super) type Lookup = Element<1>;
/// `BPF_MAP_UPDATE_ELEM`.
pub(super) type Update = Element<2>;
/// `BPF_MAP_DELETE_ELEM`.
pub(super) type Delete = Element<3>;

const _: () = assert!(size_of::<Update>() == 32);

impl Lookup {
    /// Looks up a key and writes its value to `value`. Both must have the map's sizes and live until the call.
    pub(super) fn new<K: Pod, V: Pod>(map: &impl AsFd, key: &K, value: &mut V) -> io::Result<Self> {
        Self::of(map, ptr::from_ref(key) as u64, ptr::from_mut(value) as u64)
    }
}

impl Update {
    /// Sets a key's value. Both must have the map's sizes and live until the call.
    pub(super) fn new<K: Pod, V: Pod>(map: &impl AsFd, key: &K, value: &V) -> io::Result<Self> {
        Self::of(map, ptr::from_ref(key) as u64, ptr::from_ref(value) as u64)
    }
}

impl Delete {
    /// Deletes a key, which must have the map's size and live until the call.
    pub(super) fn new<K: Pod>(map: &impl AsFd, key: &K) -> io::Result<Self> {
        Self::of(map, ptr::from_ref(key) as u64, 0)
    }
}

impl<const COMMAND: c_long> Element<COMMAND> {
    fn of(map: &impl AsFd, key: u64, value: u64) -> io::Result<Self> {
        Ok(Self {
            map_fd: number(map)?,
            key,
            value,
            ..Self::default()
        })
    }
}

// SAFETY: as in linux/bpf.h. The kernel reads a key, and reads or writes a value, of the map's sizes. The
// constructors' callers provide them.
unsafe impl<const COMMAND: c_long> Attributes for Element<COMMAND> {
    const COMMAND: c_long = COMMAND;
}

/// Adds elements to a map with keys and values of these types.
///
/// # Errors
/// Errors of bpf(2). Some elements may be in the map then.
pub(super) fn fill<K: Pod, V: Pod>(map: &MapData, keys: &[K], values: &[V]) -> io::Result<()> {
    let info = map.info().map_err(io::Error::other)?;
    let is_of = |size: u32, of: usize| usize::try_from(size).is_ok_and(|size| size == of);
    if !is_of(info.key_size(), size_of::<K>())
        || !is_of(info.value_size(), size_of::<V>())
        || keys.len() != values.len()
    {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    if keys.is_empty() {
        return Ok(());
    }
    let mut batch = UpdateBatch {
        keys: keys.as_ptr() as u64,
        values: values.as_ptr() as u64,
        count: u32::try_from(keys.len()).map_err(io::Error::other)?,
        map_fd: number(map.fd())?,
        ..UpdateBatch::default()
    };
    match bpf(&mut batch) {
        Err(error) if error.raw_os_error() == Some(NOT_SUPPORTED) => {}
        result => return result.map(drop),
    }
    for (key, value) in keys.iter().zip(values) {
        bpf(&mut Update::new(map.fd(), key, value)?)?;
    }
    Ok(())
}

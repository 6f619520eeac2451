//! Elements of maps, by bpf(2): fills a map that is new in one call, where aya makes one for each element.

use std::{ffi::c_long, io, os::fd::AsFd, ptr};

use aya::{Pod, maps::MapData};

use super::syscall::{Attributes, bpf, number};

/// `ENOTSUPP` of linux/errno.h, which no header for users has: maps of this type take no batches.
const NOT_SUPPORTED: i32 = 524;

/// The part of the union `bpf_attr` that `BPF_MAP_UPDATE_BATCH` uses.
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

// SAFETY: as in linux/bpf.h. The kernel reads `count` keys and values, of the map's sizes: `fill` has
// them.
unsafe impl Attributes for UpdateBatch {
    /// `BPF_MAP_UPDATE_BATCH`.
    const COMMAND: c_long = 26;
}

/// The part that the commands for one element use, of which this is one.
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
    /// Of a key, to be written to `value`. Both are to be of the map's sizes, and there until the call is made.
    pub(super) fn new<K: Pod, V: Pod>(map: &impl AsFd, key: &K, value: &mut V) -> io::Result<Self> {
        Self::of(map, ptr::from_ref(key) as u64, ptr::from_mut(value) as u64)
    }
}

impl Update {
    /// Of a key's value. Both are to be of the map's sizes, and there until the call is made.
    pub(super) fn new<K: Pod, V: Pod>(map: &impl AsFd, key: &K, value: &V) -> io::Result<Self> {
        Self::of(map, ptr::from_ref(key) as u64, ptr::from_ref(value) as u64)
    }
}

impl Delete {
    /// Of a key, which is to be of the map's size, and there until the call is made.
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

// SAFETY: as in linux/bpf.h. The kernel reads a key, and reads or writes a value, of the map's sizes: whoever makes
// one has them.
unsafe impl<const COMMAND: c_long> Attributes for Element<COMMAND> {
    const COMMAND: c_long = COMMAND;
}

/// Puts elements into a map whose keys and values are of these types.
///
/// # Errors
/// What bpf(2) fails with; some of them may be in the map then.
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

//! Elements of maps, by bpf(2). Fills a new map, and reads a whole array, in one call; aya makes one call for each element.

use std::{ffi::c_long, io, os::fd::AsFd, ptr};

use aya::{Pod, maps::MapData};

use super::syscall::{Attributes, bpf, number};

/// `ENOTSUPP` of linux/errno.h, which no user-space header has: the map's type takes no batches.
const NOT_SUPPORTED: i32 = 524;

/// The part of `union bpf_attr` that the commands for several elements use.
#[repr(C)]
#[derive(Default)]
struct Batch<const COMMAND: c_long> {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

/// `BPF_MAP_LOOKUP_BATCH`.
type LookupBatch = Batch<24>;
/// `BPF_MAP_UPDATE_BATCH`.
type UpdateBatch = Batch<26>;

const _: () = assert!(size_of::<UpdateBatch>() == 56);

// SAFETY: as in linux/bpf.h. The kernel reads or writes `count` keys and values of the map's sizes, which the callers below
// provide, and for a look-up one key at `out_batch`.
unsafe impl<const COMMAND: c_long> Attributes for Batch<COMMAND> {
    const COMMAND: c_long = COMMAND;
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

/// The argument of `BPF_MAP_FREEZE`.
#[repr(C)]
pub(super) struct Freeze {
    map_fd: u32,
}

impl Freeze {
    /// Lets no process change a map any more. Programs still can.
    pub(super) fn new(map: &impl AsFd) -> io::Result<Self> {
        Ok(Self {
            map_fd: number(map)?,
        })
    }
}

// SAFETY: as in linux/bpf.h. It has no addresses.
unsafe impl Attributes for Freeze {
    const COMMAND: c_long = 22;
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

/// Reads all values of a per-CPU array: those of the first index for each of `cpus` CPUs, then those of the next.
///
/// # Errors
/// Errors of bpf(2), and if the values have another size.
pub(super) fn read_all<V: Pod + Default>(map: &MapData, cpus: usize) -> io::Result<Vec<V>> {
    let info = map.info().map_err(io::Error::other)?;
    let is_of = usize::try_from(info.value_size()).is_ok_and(|size| size == size_of::<V>());
    // The kernel pads the value of each CPU to eight bytes.
    if !is_of || !size_of::<V>().is_multiple_of(8) || cpus == 0 {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let count = usize::try_from(info.max_entries()).map_err(io::Error::other)?;
    let mut keys = vec![0_u32; count];
    let mut values = vec![V::default(); count * cpus];
    let mut last = 0_u32;
    let mut batch = LookupBatch {
        out_batch: ptr::from_mut(&mut last) as u64,
        keys: keys.as_mut_ptr() as u64,
        values: values.as_mut_ptr() as u64,
        count: info.max_entries(),
        map_fd: number(map.fd())?,
        ..LookupBatch::default()
    };
    match bpf(&mut batch) {
        // Before Linux 5.13.
        Err(error) if error.raw_os_error() == Some(NOT_SUPPORTED) => {}
        Err(error) => return Err(error),
        Ok(_) if batch.count == info.max_entries() => return Ok(values),
        Ok(_) => return Err(io::ErrorKind::UnexpectedEof.into()),
    }
    for (index, of_cpus) in (0_u32..).zip(values.chunks_mut(cpus)) {
        // The kernel writes the values of all CPUs, for which there is room.
        bpf(&mut Lookup::of(
            map.fd(),
            ptr::from_ref(&index) as u64,
            of_cpus.as_mut_ptr() as u64,
        )?)?;
    }
    Ok(values)
}

//! An array of maps with one slot: what programs look at can be swapped while they run.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    thread,
};

use anyhow::{Context, Result, anyhow};
use aya::maps::{ArrayOfMaps, FromMapData, InnerMap, Map, MapData, MapError};

use super::{
    fill::Update,
    syscall::{bpf, number},
};

/// The slot, for maps of one type.
pub(super) struct Slot<V> {
    array: ArrayOfMaps<MapData, V>,
    /// The array's descriptor, which aya does not hand out.
    fd: OwnedFd,
}

impl<V: FromMapData + InnerMap> Slot<V> {
    /// That of an array of maps.
    ///
    /// # Errors
    /// If it is another kind of map.
    pub(super) fn of(map: Map) -> Result<Self> {
        let Map::ArrayOfMaps(data) = &map else {
            return Err(anyhow!("not an array of maps"));
        };
        let fd = duplicate(data.fd())?;
        Ok(Self {
            array: map.try_into()?,
            fd,
        })
    }

    /// What is in it, if anything is.
    ///
    /// # Errors
    /// If that cannot be read.
    pub(super) fn get(&self) -> Result<Option<V>, MapError> {
        match self.array.get(&0, 0) {
            Ok(map) => Ok(Some(map)),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Puts a map in it. When this returns no program looks at the one that was there before any more: the
    /// kernel waits for those that run (`maybe_wait_bpf_programs` in kernel/bpf/syscall.c), some ten
    /// milliseconds. If there was none before, there is nothing to wait for.
    ///
    /// # Errors
    /// If the kernel does not do it; what was there before still is.
    pub(super) fn put(&mut self, map: &V) -> Result<()> {
        if self.get()?.is_some() {
            return Ok(self.array.set(0, map, 0)?);
        }
        let (array, inner) = (duplicate(&self.fd)?, duplicate(map.fd())?);
        // bpf(2) has it in its place at once, and waits all the same.
        let putting = thread::spawn(move || put(&array, &inner));
        while self.get()?.is_none() {
            if putting.is_finished() {
                let put = putting.join();
                return Ok(put.map_err(|_| anyhow!("putting a map in its place has crashed"))??);
            }
            thread::yield_now();
        }
        Ok(())
    }
}

fn put(array: &OwnedFd, map: &OwnedFd) -> io::Result<()> {
    bpf(&mut Update::new(array, &0_u32, &number(map)?)?).map(drop)
}

fn duplicate(fd: &impl AsFd) -> Result<OwnedFd> {
    let clone = fd.as_fd().try_clone_to_owned();
    clone.context("cannot duplicate the descriptor of a map")
}

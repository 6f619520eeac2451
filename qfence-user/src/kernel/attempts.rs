//! Reads the attempts that the programs record: a ring with the first attempt of each key, and maps that count the
//! repeats. The maps are pinned, so unread attempts outlive their reader.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
    path::Path,
};

use anyhow::{Context, Result};
use aya::{
    Ebpf,
    maps::{
        FromMapData, HashMap, InnerMap, IterableMap, MapData, MapError, RingBuf, lpm_trie::LpmTrie,
    },
};
use nix::errno::Errno;
use qfence_common::{AttemptKey, Event, NamedEvent, Repeats, abi, unix::Name};

use super::{
    fill::fill,
    load::take,
    maps::{self, NO_PREALLOC, pinned},
    sizes,
    slot::{First, Slot},
};
use crate::base::locks::{Exclusive, try_exclusive};

type Keys = HashMap<MapData, AttemptKey, Repeats>;
type MoreKeys = LpmTrie<MapData, AttemptKey, Repeats>;

const NOT_SWAPPED: &str = "cannot swap in a map of attempts";

/// The reader of a fence's attempts. There is one at a time.
pub struct Attempts {
    ring: RingBuf<MapData>,
    keys: Slot<Keys>,
    /// The keys that do not fit in the other map.
    more: Slot<MoreKeys>,
    /// The lock of the reader.
    _reader: Exclusive,
}

impl Attempts {
    /// Becomes the reader of the fence whose links are in `pins`; `None` if there is a reader already.
    ///
    /// # Errors
    /// If the maps do not exist, or belong to another version.
    pub fn open(pins: &Path) -> Result<Option<Self>> {
        let directory = maps::directory(pins)?;
        let Some(reader) = try_exclusive(&directory)? else {
            return Ok(None);
        };
        Ok(Some(Self {
            ring: pinned(&directory, abi::EVENTS_MAP)?.try_into()?,
            keys: Slot::of(pinned(&directory, abi::REPEATS_MAP)?)?,
            more: Slot::of(pinned(&directory, abi::MORE_REPEATS_MAP)?)?,
            _reader: reader,
        }))
    }

    /// The next event, if there is one, and the name of a Unix socket that it has.
    ///
    /// # Errors
    /// If a record has another size than an event.
    pub fn event(&mut self) -> Result<Option<(Event, Option<Name>)>> {
        let Some(item) = self.ring.next() else {
            return Ok(None);
        };
        let event = match NamedEvent::from_bytes(&item) {
            Some(NamedEvent { event, name }) => Some((event, Some(name))),
            None => Event::from_bytes(&item).map(|event| (event, None)),
        };
        Ok(Some(event.context(
            "the ring of attempts has a record of an unknown size",
        )?))
    }

    /// Takes the counts since the last call, and swaps in a fresh map that has only the keys `known`. Another key
    /// produces an event first, as long as there is room for it.
    ///
    /// When this returns, no program counts in the old map any more: the kernel waits for running programs
    /// (`maybe_wait_bpf_programs` in kernel/bpf/syscall.c). So no attempt is counted twice or lost, unless reading
    /// the map fails halfway.
    ///
    /// # Errors
    /// If a map cannot be made, swapped in or read.
    pub fn take(&mut self, known: &[(AttemptKey, Repeats)]) -> Result<Vec<(AttemptKey, Repeats)>> {
        let taken = swap(&mut self.keys, &fresh(known)?)?;
        let mut counted = read(taken.iter().take(abi::KEYS as usize))?;
        let more = in_place(&self.more)?;
        // Usually it is empty, and a swap takes time. Keys that arrive after this look are read by the next call.
        if more.keys().next().is_some() {
            let taken = swap(&mut self.more, &fresh_more()?)?;
            let more = taken.iter().take(abi::MORE_KEYS as usize);
            counted.extend(read(
                more.map(|each| each.map(|(key, of)| (key.data(), of))),
            )?);
        }
        Ok(counted)
    }
}

/// The map in a slot.
fn in_place<M: FromMapData + InnerMap>(slot: &Slot<M>) -> Result<M> {
    slot.get()
        .context("cannot read the map of attempts")?
        .context("there is no map of attempts")
}

/// Swaps a map in. Returns the old one, in which no program counts any more.
fn swap<M: FromMapData + InnerMap>(slot: &mut Slot<M>, fresh: &M) -> Result<M> {
    let taken = in_place(slot)?;
    slot.swap(fresh).context(NOT_SWAPPED)?;
    Ok(taken)
}

fn read(
    counted: impl Iterator<Item = Result<(AttemptKey, Repeats), MapError>>,
) -> Result<Vec<(AttemptKey, Repeats)>> {
    counted
        .collect::<Result<_, _>>()
        .context("cannot read the counts of attempts")
}

impl AsFd for Attempts {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the ring's descriptor is open as long as the ring lives.
        unsafe { BorrowedFd::borrow_raw(self.ring.as_raw_fd()) }
    }
}

/// Makes the first maps, for their slots before any program is attached. The second value keeps open the maps that
/// the programs name.
///
/// # Errors
/// As [`Attempts::take`].
pub(super) fn prepare(ebpf: &mut Ebpf) -> Result<([First; 2], impl Send + 'static + use<>)> {
    let keys: Slot<Keys> = Slot::of(take(ebpf, abi::REPEATS_MAP)?)?;
    let more: Slot<MoreKeys> = Slot::of(take(ebpf, abi::MORE_REPEATS_MAP)?)?;
    let firsts = [keys.first(&fresh(&[])?)?, more.first(&fresh_more()?)?];
    Ok((firsts, (keys, more)))
}

fn fresh_more() -> Result<MoreKeys> {
    MoreKeys::create(abi::MORE_KEYS, NO_PREALLOC).context("cannot make a map of more attempts")
}

/// A map that has the known keys, with room for as many again.
fn fresh(known: &[(AttemptKey, Repeats)]) -> Result<Keys> {
    let fresh = Keys::create(sizes::keys(known.len()), NO_PREALLOC)
        .context("cannot make a map of attempts")?;
    let (keys, values): (Vec<_>, Vec<_>) = known.iter().copied().unzip();
    filled(fill(fresh.map(), &keys, &values)).context("cannot fill a map of attempts")?;
    Ok(fresh)
}

/// If there are more known keys than room, the rest is left out.
fn filled(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.raw_os_error() == Some(Errno::E2BIG as i32) => Ok(()),
        other => other,
    }
}

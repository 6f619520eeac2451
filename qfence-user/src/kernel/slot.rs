//! An array of maps with one slot: what programs look at can be swapped while they run.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    sync::{Arc, mpsc},
    thread::{self, JoinHandle},
};

use anyhow::{Context, Result, anyhow};
use aya::maps::{ArrayOfMaps, FromMapData, InnerMap, Map, MapData, MapError};

use super::{
    fill::{Delete, Lookup, Update},
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

    /// Puts a map in the place of another. When this returns no program looks at that any more: the kernel waits for
    /// those that run (`maybe_wait_bpf_programs` in kernel/bpf/syscall.c), some ten milliseconds.
    ///
    /// # Errors
    /// If the kernel does not do it; what was there before still is.
    pub(super) fn swap(&mut self, map: &V) -> Result<(), MapError> {
        self.array.set(0, map, 0)
    }

    /// Empties it, for good.
    ///
    /// # Errors
    /// If the kernel does not do it.
    pub(super) fn clear(&mut self) -> io::Result<()> {
        match bpf(&mut Delete::new(&self.fd, &0_u32)?) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// A map that is about to be the first in it.
    ///
    /// # Errors
    /// If the process has no descriptors left.
    pub(super) fn first(&self, map: &V) -> Result<First> {
        Ok(First {
            array: Arc::new(duplicate(&self.fd)?),
            map: duplicate(map.fd())?,
        })
    }
}

/// A map that is about to be the first in a slot.
pub(super) struct First {
    array: Arc<OwnedFd>,
    map: OwnedFd,
}

/// Puts each into its slot, which is empty.
///
/// bpf(2) has it there at once, and waits all the same, so it is a thread's affair. All of them call at one
/// time, so that one grace period of RCU does for them: as long as one lasts this process cannot end.
///
/// # Errors
/// If the kernel does not do it.
pub(super) fn put_together(firsts: impl IntoIterator<Item = First>) -> Result<()> {
    let firsts: Vec<First> = firsts.into_iter().collect();
    let waiting: Vec<_> = firsts
        .into_iter()
        .map(First::prepare)
        .collect::<Result<_>>()?;
    // If that failed, those that wait are not told, and end.
    let putting: Vec<_> = waiting.into_iter().map(Waiting::go).collect();
    putting.into_iter().try_for_each(Putting::finish)
}

impl First {
    /// Makes the thread that will put it there.
    fn prepare(self) -> Result<Waiting> {
        let array = Arc::clone(&self.array);
        let (go, wait) = mpsc::channel();
        let thread = thread::Builder::new().spawn(move || {
            wait.recv().map_err(io::Error::other)?;
            bpf(&mut Update::new(&self.array, &0_u32, &number(&self.map)?)?).map(drop)
        });
        let thread = thread.context("cannot make a thread")?;
        Ok(Waiting {
            go,
            putting: Putting { array, thread },
        })
    }
}

/// A map that is put into a slot as soon as its thread is told.
struct Waiting {
    go: mpsc::Sender<()>,
    putting: Putting,
}

impl Waiting {
    fn go(self) -> Putting {
        // It waits for that as long as the sender is there.
        let _ = self.go.send(());
        self.putting
    }
}

/// A map that is being put into a slot.
struct Putting {
    array: Arc<OwnedFd>,
    thread: JoinHandle<io::Result<()>>,
}

impl Putting {
    /// Returns when it is there.
    fn finish(self) -> Result<()> {
        loop {
            match bpf(&mut Lookup::new(&self.array, &0_u32, &mut 0_u32)?) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                found => return Ok(found.map(drop)?),
            }
            if self.thread.is_finished() {
                let put = self.thread.join();
                return Ok(put.map_err(|_| anyhow!("putting a map in its place has crashed"))??);
            }
            thread::yield_now();
        }
    }
}

fn duplicate(fd: &impl AsFd) -> Result<OwnedFd> {
    let clone = fd.as_fd().try_clone_to_owned();
    clone.context("cannot duplicate the descriptor of a map")
}

//! A one-element array of maps. Its map can be swapped while programs run.

use std::{
    fs, io,
    os::fd::{AsFd, AsRawFd as _, OwnedFd},
    sync::{Arc, mpsc},
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context, Result, anyhow};
use aya::maps::{ArrayOfMaps, FromMapData, InnerMap, Map, MapData, MapError};

use super::{
    fill::{Delete, Freeze, Lookup, Update},
    syscall::{bpf, number},
};

/// A slot for maps of one type.
pub(super) struct Slot<V> {
    array: ArrayOfMaps<MapData, V>,
    /// The array's descriptor, which aya does not expose.
    fd: OwnedFd,
}

impl<V: FromMapData + InnerMap> Slot<V> {
    /// The slot of an array of maps.
    ///
    /// # Errors
    /// If the map has another type.
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

    /// The map in the slot; `None` if it is empty.
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

    /// Replaces the map. When this returns, no program uses the old map any more: the kernel waits about ten
    /// milliseconds for running programs (`maybe_wait_bpf_programs` in kernel/bpf/syscall.c).
    ///
    /// # Errors
    /// If the kernel fails to. The old map is in the slot then.
    pub(super) fn swap(&mut self, map: &V) -> Result<(), MapError> {
        self.array.set(0, map, 0)
    }

    /// Empties the slot.
    ///
    /// # Errors
    /// If the kernel does not do it.
    pub(super) fn clear(&mut self) -> io::Result<()> {
        match bpf(&mut Delete::new(&self.fd, &0_u32)?) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// From now on no process can change what is in the slot. Before Linux 5.10.82 and 5.15.5, a change that has begun can
    /// still come afterwards (`map_freeze` in kernel/bpf/syscall.c).
    ///
    /// # Errors
    /// If the kernel does not do it, or another process changes it all the time.
    pub(super) fn freeze(&self) -> io::Result<()> {
        let mut attempts = 1;
        loop {
            match bpf(&mut Freeze::new(&self.fd)?) {
                Ok(_) => return Ok(()),
                Err(_) if is_frozen(&self.fd)? => return Ok(()),
                // Another process is about to change it (`bpf_map_write_active`).
                Err(error)
                    if error.kind() == io::ErrorKind::ResourceBusy && attempts < FREEZINGS =>
                {
                    attempts += 1;
                    thread::sleep(PAUSE);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Empties the slot for a while. When this returns, programs that start find it empty; the result waits for the others.
    ///
    /// # Errors
    /// If the kernel does not do it.
    pub(super) fn empty(&self) -> Result<Emptying> {
        let array = duplicate(&self.fd)?;
        let thread =
            thread::Builder::new().spawn(move || match bpf(&mut Delete::new(&array, &0_u32)?) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            });
        let thread = thread.context(NO_THREAD)?;
        // Not by `get`, which opens the map: it may be gone between the reading of its id and that.
        while is_full(&self.fd)? {
            if thread.is_finished() {
                Emptying(Some(thread)).finish()?;
                return Ok(Emptying(None));
            }
            thread::yield_now();
        }
        Ok(Emptying(Some(thread)))
    }

    /// Empties the slot if there is a map in it, and waits until no program uses that any more.
    ///
    /// # Errors
    /// If the kernel does not do it.
    pub(super) fn empty_if_full(&self) -> Result<()> {
        if is_full(&self.fd)? {
            self.empty()?.finish()?;
        }
        Ok(())
    }

    /// Prepares to put the first map into the slot.
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

const NO_THREAD: &str = "cannot make a thread";

/// How often freezing is tried, and the time between two attempts. A change of a slot takes some 10 ms.
const FREEZINGS: u32 = 500;
const PAUSE: Duration = Duration::from_millis(1);

/// Whether a map is frozen (`bpf_map_show_fdinfo` in kernel/bpf/syscall.c).
fn is_frozen(map: &OwnedFd) -> io::Result<bool> {
    let text = fs::read_to_string(format!("/proc/self/fdinfo/{}", map.as_raw_fd()))?;
    Ok(text.lines().any(|line| line == "frozen:\t1"))
}

/// A slot that has been emptied, and the thread that waits for the programs which may still use its map.
pub(super) struct Emptying(Option<JoinHandle<io::Result<()>>>);

impl Emptying {
    /// Waits until no program uses the map any more.
    ///
    /// # Errors
    /// If the kernel has not emptied the slot.
    pub(super) fn finish(self) -> Result<()> {
        let emptied = self.0.map_or(Ok(Ok(())), JoinHandle::join);
        Ok(emptied.map_err(|_| anyhow!("a thread that empties a slot has panicked"))??)
    }
}

/// A map that will be the first in a slot.
pub(super) struct First {
    array: Arc<OwnedFd>,
    map: OwnedFd,
}

/// Fills several empty slots.
///
/// bpf(2) puts the map in place at once, but still waits for an RCU grace period before it returns. So each call has
/// a thread, and all calls are made at the same time, to share one grace period. This process cannot end during it.
///
/// # Errors
/// If the kernel fails to.
pub(super) fn put_together(firsts: impl IntoIterator<Item = First>) -> Result<()> {
    let firsts: Vec<First> = firsts.into_iter().collect();
    let waiting: Vec<_> = firsts
        .into_iter()
        .map(First::prepare)
        .collect::<Result<_>>()?;
    // If that failed, the other threads get no signal and end.
    let putting: Vec<_> = waiting.into_iter().map(Waiting::go).collect();
    putting.into_iter().try_for_each(Putting::finish)
}

impl First {
    /// Starts the thread that will fill the slot.
    fn prepare(self) -> Result<Waiting> {
        let array = Arc::clone(&self.array);
        let (go, wait) = mpsc::channel();
        let thread = thread::Builder::new().spawn(move || {
            wait.recv().map_err(io::Error::other)?;
            bpf(&mut Update::new(&self.array, &0_u32, &number(&self.map)?)?).map(drop)
        });
        let thread = thread.context(NO_THREAD)?;
        Ok(Waiting {
            go,
            putting: Putting { array, thread },
        })
    }
}

/// A thread that waits for the signal to fill its slot.
struct Waiting {
    go: mpsc::Sender<()>,
    putting: Putting,
}

impl Waiting {
    fn go(self) -> Putting {
        // The thread waits as long as the sender exists.
        let _ = self.go.send(());
        self.putting
    }
}

/// A thread that fills its slot.
struct Putting {
    array: Arc<OwnedFd>,
    thread: JoinHandle<io::Result<()>>,
}

impl Putting {
    /// Waits until the slot is filled.
    fn finish(self) -> Result<()> {
        loop {
            if is_full(&self.array)? {
                return Ok(());
            }
            if self.thread.is_finished() {
                let put = self.thread.join();
                return Ok(put.map_err(|_| anyhow!("a thread that fills a slot has panicked"))??);
            }
            thread::yield_now();
        }
    }
}

/// Whether there is a map in the slot of this array.
fn is_full(array: &impl AsFd) -> io::Result<bool> {
    match bpf(&mut Lookup::new(array, &0_u32, &mut 0_u32)?) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        found => found.map(|_| true),
    }
}

fn duplicate(fd: &impl AsFd) -> Result<OwnedFd> {
    let clone = fd.as_fd().try_clone_to_owned();
    clone.context("cannot duplicate the descriptor of a map")
}

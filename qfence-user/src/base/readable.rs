//! Waits in the event loop until a descriptor is readable.

use std::{
    fs::File,
    io,
    os::fd::{AsFd, AsRawFd},
};

use tokio::io::{Interest, unix::AsyncFd};

/// Registers an object with the event loop of the current tokio runtime, for reading only: some of the descriptors
/// here cannot be polled for writing.
///
/// # Errors
/// If the descriptor cannot be polled.
pub fn readable<T: AsFd + AsRawFd>(object: T) -> io::Result<AsyncFd<T>> {
    // SAFETY: the object has a descriptor that is open as long as the object lives (`AsFd`), and the `AsyncFd` owns
    // the object until it has deregistered it.
    unsafe { AsyncFd::register_with_interest(object, Interest::READABLE) }
        .map_err(|error| error.into_parts().1)
}

/// Registers a file with the event loop of the current tokio runtime, for changes that the kernel reports as urgent, such as
/// those of cgroup.events.
///
/// # Errors
/// If the file cannot be polled.
pub fn urgent(file: File) -> io::Result<AsyncFd<File>> {
    // SAFETY: as above. A file keeps its descriptor.
    unsafe { AsyncFd::register_with_interest(file, Interest::PRIORITY) }
        .map_err(|error| error.into_parts().1)
}

//! Waits in the event loop until a descriptor can be read.

use std::{
    io,
    os::fd::{AsFd, AsRawFd},
};

use tokio::io::{Interest, unix::AsyncFd};

/// Registers an object with the event loop of the tokio runtime this is called in. Only reading is
/// of interest: some of the descriptors here can be polled for nothing else.
///
/// # Errors
/// If the descriptor cannot be polled.
pub fn readable<T: AsFd + AsRawFd>(object: T) -> io::Result<AsyncFd<T>> {
    // SAFETY: the object has a descriptor that is open as long as it is (`AsFd`), and the `AsyncFd`
    // keeps the object until it has deregistered it.
    unsafe { AsyncFd::register_with_interest(object, Interest::READABLE) }
        .map_err(|error| error.into_parts().1)
}

//! Changes of a network device: up, down, into a bridge, and its end.

use std::{io, thread};

use netlink_packet_route::link::LinkMessage;
use nix::errno::Errno;
use rtnetlink::LinkUnspec;
use tokio::runtime::Builder;

use super::DeviceError;

/// Sets a device up. Must be called within a tokio runtime.
///
/// # Errors
/// If the kernel refuses it.
pub async fn set_up(index: u32) -> Result<(), DeviceError> {
    change(LinkUnspec::new_with_index(index).up().build()).await
}

/// Sets a device down: no frame passes it. Must be called within a tokio runtime.
///
/// # Errors
/// If the kernel refuses it.
pub async fn set_down(index: u32) -> Result<(), DeviceError> {
    change(LinkUnspec::new_with_index(index).down().build()).await
}

/// Makes a device a port of a bridge. Must be called within a tokio runtime.
///
/// # Errors
/// If the kernel refuses it.
pub async fn move_into(index: u32, bridge: u32) -> Result<(), DeviceError> {
    let message = LinkUnspec::new_with_index(index).controller(bridge).build();
    change(message).await
}

/// Deletes a device. One that does not exist is no error.
///
/// # Errors
/// If the kernel refuses it.
pub fn delete(index: u32) -> Result<(), DeviceError> {
    // The caller may be in a runtime.
    thread::scope(|scope| {
        let thread = thread::Builder::new().spawn_scoped(scope, || delete_here(index));
        let thread = thread.map_err(DeviceError::Open)?;
        let crashed = |_| DeviceError::Open(io::Error::other("a thread has panicked"));
        thread.join().map_err(crashed)?
    })
}

fn delete_here(index: u32) -> Result<(), DeviceError> {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(DeviceError::Open)?;
    runtime.block_on(async {
        let (connection, handle, _) = rtnetlink::new_connection().map_err(DeviceError::Open)?;
        let connection = tokio::spawn(connection);
        let deleted = handle.link().del(index).execute().await;
        connection.abort();
        match deleted {
            Err(rtnetlink::Error::NetlinkError(error))
                if error.raw_code().abs() == Errno::ENODEV as i32 =>
            {
                Ok(())
            }
            deleted => deleted.map_err(|error| DeviceError::Change(Box::new(error))),
        }
    })
}

async fn change(message: LinkMessage) -> Result<(), DeviceError> {
    let (connection, handle, _) = rtnetlink::new_connection().map_err(DeviceError::Open)?;
    let connection = tokio::spawn(connection);
    let changed = handle.link().set(message).execute().await;
    connection.abort();
    changed.map_err(|error| DeviceError::Change(Box::new(error)))
}

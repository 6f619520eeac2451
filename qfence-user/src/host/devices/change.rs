//! Changes of a network device: up, down, and into a bridge.

use netlink_packet_route::link::LinkMessage;
use rtnetlink::LinkUnspec;

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

async fn change(message: LinkMessage) -> Result<(), DeviceError> {
    let (connection, handle, _) = rtnetlink::new_connection().map_err(DeviceError::Open)?;
    let connection = tokio::spawn(connection);
    let changed = handle.link().set(message).execute().await;
    connection.abort();
    changed.map_err(|error| DeviceError::Change(Box::new(error)))
}

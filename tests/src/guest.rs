//! Guests: machines under QEMU's user networking, whose attempts are the point of it all.

pub mod image;
mod initramfs;
pub mod ipxe;
pub mod linux;
mod qemu;

pub use linux::{Guest, Options};

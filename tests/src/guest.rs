//! Guests: machines under QEMU's user networking, from which tests make attempts.

pub mod image;
mod initramfs;
pub mod ipxe;
pub mod linux;
mod qemu;

pub use linux::{Guest, Options};

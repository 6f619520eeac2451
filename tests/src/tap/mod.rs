//! Guests with a tap device: a host with a bridge or a routed tap, an internet behind it, a neighbour, and guests that
//! write frames.
//!
//! | file | contents |
//! |---|---|
//! | [`scene`] | the host, its networks and services, and the devices |
//! | [`device`] | the descriptor of a tap device, with or without headers for offloads |
//! | [`wire`] | how frames are built, from Ethernet up |
//! | [`answer`] | what came back into the device |
//! | [`evidence`] | what shows that a frame arrived: the kernel's counters and packet sockets |
//! | [`foreign`] | a program of somebody else's at a device |
//! | [`relay`] | a guest with a real network stack, without a machine: two devices joined by a thread |
//! | [`served`] | DHCP, DNS and router advertisements of the gateway |

pub mod answer;
pub mod device;
pub mod evidence;
pub mod foreign;
pub mod relay;
pub mod scene;
pub mod served;
pub mod wire;

pub use device::{Header, Tap};
pub use scene::{Kind, Link, Scene};

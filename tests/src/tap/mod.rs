//! Guests with a tap device: the scene of `verify`, with a host that has its own `/etc` and `/dev/net/tun`, and guests that
//! write frames.
//!
//! | file | contents |
//! |---|---|
//! | [`scene`] | the host, its networks and services, and the devices |
//! | [`foreign`] | a program of somebody else's at a device |
//! | [`relay`] | a guest with a real network stack, without a machine: two devices joined by a thread |
//! | [`served`] | DHCP, DNS and router advertisements of the gateway |

pub mod foreign;
pub mod relay;
pub mod scene;
pub mod served;

pub use qfence_user::{
    probe::frame::{Header, Tap, answer, wire},
    verify::devices::{
        evidence,
        scene::{Kind, Link},
    },
};
pub use scene::{Bed, Scene};

//! The options for network devices of guests.

use std::str::FromStr;

use clap::Args;
use thiserror::Error;

use crate::{base::mac::Mac, qemu::taps};

/// Network devices of guests.
#[derive(Clone, Debug, Default, Args)]
pub struct DeviceArgs {
    /// Fence a network device: what a guest or container sends into it is judged by the policy; can be repeated
    ///
    /// A tap device, a macvtap device, or the host's end of a container's veth pair. The device of a QEMU
    /// (-netdev tap,ifname=NAME) needs no option.
    #[arg(long, value_name = "NAME", value_parser = device_name)]
    pub device: Vec<String>,

    /// Make a tap device for a QEMU that names it (-netdev tap,ifname=NAME), fence it, and remove it at the end; can be
    /// repeated
    ///
    /// With bridge=BRIDGE it becomes a port of this bridge.
    #[arg(long, value_name = "NAME[,bridge=BRIDGE]")]
    pub tap: Vec<NewTap>,

    /// A MAC address that the guests may use; can be repeated [default: that in QEMU's arguments, or else that of the
    /// first frame]
    #[arg(long, value_name = "MAC")]
    pub mac: Vec<Mac>,
}

/// A tap device to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewTap {
    /// Its name.
    pub name: String,
    /// The bridge that it becomes a port of.
    pub bridge: Option<String>,
}

/// The value of `--tap` or `--device` is invalid.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum InvalidDevice {
    /// No device can have this name.
    #[error(
        "{0:?} is no name of a network device: it has up to 15 bytes, without blanks, / : and %"
    )]
    Name(String),
    /// There is another word after the name.
    #[error("{0:?} is not known; give NAME or NAME,bridge=BRIDGE")]
    Word(String),
}

pub(in crate::cli) fn device_name(text: &str) -> Result<String, InvalidDevice> {
    match taps::is_name(text) && !text.contains(',') {
        true => Ok(text.to_owned()),
        false => Err(InvalidDevice::Name(text.to_owned())),
    }
}

impl FromStr for NewTap {
    type Err = InvalidDevice;

    fn from_str(text: &str) -> Result<Self, InvalidDevice> {
        let (name, rest) = match text.split_once(',') {
            Some((name, rest)) => (name, Some(rest)),
            None => (text, None),
        };
        let bridge = |word: &str| match word.strip_prefix("bridge=") {
            Some(bridge) => device_name(bridge),
            None => Err(InvalidDevice::Word(word.to_owned())),
        };
        Ok(Self {
            name: device_name(name)?,
            bridge: rest.map(bridge).transpose()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_to_make_is_a_name_and_perhaps_a_bridge() {
        let made = |name: &str, bridge: Option<&str>| NewTap {
            name: name.to_owned(),
            bridge: bridge.map(str::to_owned),
        };
        assert_eq!("t0".parse(), Ok(made("t0", None)));
        assert_eq!("t0,bridge=br0".parse(), Ok(made("t0", Some("br0"))));
        for odd in [
            "",
            ",bridge=br0",
            "t0,",
            "t0,bridge=",
            "t0,br0",
            "t0,bridge=a,b",
            "a b",
            "t%d",
            "sixteen-letters-",
        ] {
            assert!(odd.parse::<NewTap>().is_err(), "{odd}");
        }
    }
}

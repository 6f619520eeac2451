//! Tap devices that a QEMU attaches its guest to by name. qfence opens such a device itself, because nothing in the fence
//! may open /dev/net/tun, and writes the descriptor into QEMU's argument.

use std::{
    ffi::{OsStr, OsString},
    os::fd::RawFd,
};

use serde_json::Value;

use super::{
    configuration::{Item, Place},
    doors::{Door, TO_KERNEL},
    parameters::Parameters,
};
use crate::base::mac::Mac;

/// The most bytes of a device's name (`IFNAMSIZ` of linux/if.h, without the zero).
pub const LONGEST_NAME: usize = 15;

/// The most queues of a device (`MAX_TAP_QUEUES` of drivers/net/tun.c).
const MOST_QUEUES: u16 = 256;

/// The keys that a network by descriptor must not have (`net_init_tap` of QEMU's net/tap.c).
const BY_NAME: [&str; 7] = [
    "ifname",
    "script",
    "downscript",
    "queues",
    "vnet_hdr",
    "helper",
    "br",
];

/// What to do instead of letting QEMU make a device.
const MAKE: &str = "make the device first (`ip tuntap add tap0 mode tap user USER` and `ip link set tap0 up`) and give \
     ifname=tap0,script=no,downscript=no, or let qfence make it (--tap tap0); or give --allow-unfenced-net";
/// What to do instead of a bridge's helper.
pub(super) const MAKE_IN_BRIDGE: &str = "use -netdev tap with ifname=tap0,script=no,downscript=no, and make the device first (`ip \
     tuntap add tap0 mode tap user USER` and `ip link set tap0 master BRIDGE up`) or let qfence make it (--tap \
     tap0,bridge=BRIDGE); or give --allow-unfenced-net";
const NO_SCRIPTS: &str =
    "write script=no,downscript=no, and set the device up before; or give --allow-unfenced-net";
const BY_OPTION: &str =
    "give the network by -netdev, with script=no,downscript=no; or give --allow-unfenced-net";
const IN_ONE_WORD: &str =
    "write it into the option itself, without -set; or give --allow-unfenced-net";
const NAME_IT: &str = "give ifname=NAME,script=no,downscript=no instead, and qfence opens the device for QEMU; or give \
     --allow-unfenced-net";
const LEAVE_VHOST: &str =
    "leave it out: with vhost=on QEMU opens /dev/vhost-net itself; or give --allow-unfenced-net";
const NAMED_RIGHT: &str = "give the name of a device that exists; or give --allow-unfenced-net";
const COUNT_QUEUES: &str = "give queues=1 to queues=256; or give --allow-unfenced-net";

/// A tap device that QEMU attaches its guest to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tap {
    /// The position of the option's value among the words of the command.
    pub word: usize,
    /// The name of the device.
    pub name: String,
    /// The number of queues that QEMU asks for: a descriptor each.
    pub queues: u16,
    /// Whether frames have a header for offloads.
    pub vnet_hdr: bool,
    /// Whether the kernel moves the frames (vhost-net).
    pub vhost: bool,
    /// The MAC addresses of the guest's cards, as far as they are given.
    pub macs: Vec<Mac>,
    /// Whether a card has an address that is not given.
    pub has_unknown_mac: bool,
    /// The argument as the user wrote it, safe to print.
    pub argument: String,
}

impl Tap {
    /// The side door that the device is, if it is not to be fenced.
    #[must_use]
    pub fn door(&self) -> Door {
        Door::new(self.argument.clone(), (TO_KERNEL.into(), MAKE))
    }

    /// Rewrites the value of the option: the descriptors, one a queue, replace the name.
    ///
    /// # Errors
    /// Never for the word that it was found in.
    pub fn rewrite(&self, word: &OsStr, descriptors: &[RawFd]) -> Result<OsString, NotRewritten> {
        let text = word.to_str().ok_or(NotRewritten)?;
        let numbers: Vec<_> = descriptors.iter().map(ToString::to_string).collect();
        let key = if numbers.len() == 1 { "fd" } else { "fds" };
        let value = numbers.join(":");
        if text.starts_with('{') {
            let mut json: Value = serde_json::from_str(text).map_err(|_| NotRewritten)?;
            let members = json.as_object_mut().ok_or(NotRewritten)?;
            members.retain(|key, _| !BY_NAME.contains(&key.as_str()));
            members.insert(key.to_owned(), value.into());
            return Ok(json.to_string().into());
        }
        let parameters = Parameters::with_implied(text, "type");
        let kept = parameters
            .iter()
            .filter(|(key, _)| !BY_NAME.contains(key))
            .map(|(key, value)| format!("{key}={}", value.replace(',', ",,")));
        let all: Vec<_> = kept.chain([format!("{key}={value}")]).collect();
        Ok(all.join(",").into())
    }
}

/// A word of QEMU's that cannot be rewritten.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the argument cannot be rewritten for a descriptor")]
pub struct NotRewritten;

/// The tap device of one object; a side door if qfence cannot open it for QEMU. `first` is the position of QEMU's first
/// argument among the words of the command.
pub fn of(item: &Item, items: &[Item], first: usize) -> Option<Result<Tap, Door>> {
    let parameters = &item.parameters;
    let is_network = matches!(item.group.as_str(), "netdev" | "nic" | "net");
    if !is_network || parameters.get("type") != Some("tap") || parameters.asks_for_help() {
        return None;
    }
    let tap = read(item, items, first);
    Some(tap.map_err(|(why, instead)| Door::new(&item.argument, (why.into(), instead))))
}

/// Why a device cannot be opened, and what to write.
type Refusal = (&'static str, &'static str);

fn read(item: &Item, items: &[Item], first: usize) -> Result<Tap, Refusal> {
    let parameters = &item.parameters;
    let has = |key: &str| parameters.get(key).is_some();
    if has("fd") || has("fds") {
        return Err((
            "qfence cannot determine the device behind a descriptor",
            NAME_IT,
        ));
    }
    if has("vhostfd") || has("vhostfds") {
        return Err((
            "qfence cannot determine what a vhost descriptor is attached to",
            LEAVE_VHOST,
        ));
    }
    if has("helper") || has("br") {
        return Err((
            "a helper program puts a device into a bridge, and qfence does not know which",
            MAKE_IN_BRIDGE,
        ));
    }
    let Some(name) = parameters.get("ifname") else {
        return Err(("QEMU makes the device, so qfence cannot fence it", MAKE));
    };
    if !is_name(name) {
        return Err(("no device can have this name", NAMED_RIGHT));
    }
    let word = match item.place {
        Place::Word(position) => first + position,
        Place::Changed => {
            return Err((
                "qfence opens the device for QEMU, and cannot rewrite what -set changes",
                IN_ONE_WORD,
            ));
        }
        Place::Elsewhere => {
            return Err((
                "qfence opens the device for QEMU, and cannot rewrite a configuration file",
                BY_OPTION,
            ));
        }
    };
    let is_no = |key: &str| parameters.get(key) == Some("no");
    if !is_no("script") || !is_no("downscript") {
        return Err((
            "QEMU runs scripts to set the device up and down",
            NO_SCRIPTS,
        ));
    }
    let queues = parameters.get("queues").map_or(Some(1), |text| {
        let queues = text.parse().ok();
        queues.filter(|queues| (1..=MOST_QUEUES).contains(queues))
    });
    let queues = queues.ok_or(("its number of queues is none", COUNT_QUEUES))?;
    let vhost = parameters.is_on("vhost").unwrap_or(false)
        || parameters.is_on("vhostforce").unwrap_or(false);
    let (macs, has_unknown_mac) = macs(item, items);
    Ok(Tap {
        word,
        name: name.to_owned(),
        queues,
        vnet_hdr: parameters.is_on("vnet_hdr").unwrap_or(true),
        vhost,
        macs,
        has_unknown_mac,
        argument: item.argument.clone(),
    })
}

/// Whether a device can have this name (`dev_valid_name` of net/core/dev.c). The kernel fills in a `%d`.
#[must_use]
pub fn is_name(name: &str) -> bool {
    let is_odd =
        |byte: u8| byte.is_ascii_whitespace() || byte.is_ascii_control() || b"/:%".contains(&byte);
    !name.is_empty()
        && name.len() <= LONGEST_NAME
        && !matches!(name, "." | "..")
        && !name.bytes().any(is_odd)
}

/// The addresses of the cards at this network, and whether one is not given. QEMU numbers the others in the order in
/// which it makes them.
fn macs(item: &Item, items: &[Item]) -> (Vec<Mac>, bool) {
    let given =
        |item: &Item, key: &str| item.parameters.get(key).and_then(|text| text.parse().ok());
    let cards: Vec<Option<Mac>> = match item.group.as_str() {
        "nic" => vec![given(item, "mac")],
        // All of -net are at one hub.
        "net" => {
            let cards = items.iter().filter(|other| {
                let is_card = other.group == "net" && other.parameters.get("type") == Some("nic");
                is_card && other.parameters.get("netdev").is_none()
            });
            cards.map(|card| given(card, "macaddr")).collect()
        }
        _ => {
            let id = item.parameters.get("id").unwrap_or_default();
            let at = items.iter().filter(|other| {
                let is_card = matches!(other.group.as_str(), "device" | "net");
                is_card && other.parameters.get("netdev") == Some(id)
            });
            let cards = at.map(|card| {
                let key = if card.group == "net" {
                    "macaddr"
                } else {
                    "mac"
                };
                given(card, key)
            });
            cards.collect()
        }
    };
    let has_unknown = cards.is_empty() || cards.iter().any(Option::is_none);
    (cards.into_iter().flatten().collect(), has_unknown)
}

#[cfg(test)]
mod tests;

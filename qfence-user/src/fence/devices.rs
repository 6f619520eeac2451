//! The network devices of a fence, as its description has them, and whether each is fenced.

use std::{collections::BTreeSet, net::IpAddr, path::Path};

use anyhow::{Context as _, Result};
use nix::net::if_::{Interfaces, if_nameindex, if_nametoindex};
use qfence_common::frame::{LEARNS_MAC, REVERSED, SERVED};
use serde::{Deserialize, Serialize};

use crate::{
    base::mac::Mac,
    host::devices::{self, Devices},
    kernel::{
        Kernel,
        device::{
            Wanted, attach,
            state::{State, state},
        },
        local_in::Membership,
        pins::Pins,
    },
    stored_policy::netns,
};

/// A network device of a guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FencedDevice {
    /// Its name.
    pub name: String,
    /// Its index.
    pub index: u32,
    /// Its network namespace: the inode of the file in /proc.
    pub netns: u64,
    /// Whether it is a macvtap device.
    #[serde(default)]
    pub is_reversed: bool,
    /// The MAC addresses that its guest may use and has not chosen.
    pub macs: Vec<Mac>,
    /// Whether the first frame adds one.
    pub learns_mac: bool,
    /// The one that a first frame has added, before the device was fenced again, or that of the pod's end of a wire. Whoever is
    /// fenced has chosen it: it could be that of a router of the host, so the second layer is not told of it.
    #[serde(default)]
    pub learnt: Option<Mac>,
    /// Whether it was made for the fence, and ends with it.
    #[serde(default)]
    pub is_made: bool,
    /// Whether it is this host's end of a pod's wire. The fence ends with it. The host serves nothing to the pod that the
    /// fences of its containers do not allow: neither DNS at the gateway nor DHCP.
    #[serde(default)]
    pub is_of_pod: bool,
}

impl FencedDevice {
    /// What the kernel side is told of it. `slot` is the number of the fence in the second layer.
    #[must_use]
    pub fn wanted(&self, slot: u32, gateways: &BTreeSet<IpAddr>) -> Wanted {
        Wanted {
            index: self.index,
            slot,
            flags: self.flags(gateways),
            macs: self.all_macs().map(Mac::number).collect(),
            gateways: gateways.iter().copied().collect(),
        }
    }

    /// The MAC addresses that its guest may use, as far as they are known.
    pub fn all_macs(&self) -> impl Iterator<Item = Mac> {
        self.macs.iter().copied().chain(self.learnt)
    }

    /// The flags for the programs. The host may serve the guest's network where it has an address there, but no pod.
    #[must_use]
    pub fn flags(&self, gateways: &BTreeSet<IpAddr>) -> u32 {
        let learns = if self.learns_mac { LEARNS_MAC } else { 0 };
        let reversed = if self.is_reversed { REVERSED } else { 0 };
        let is_served = !gateways.is_empty() && !self.is_of_pod;
        let served = if is_served { SERVED } else { 0 };
        learns | reversed | served
    }

    /// Fences it, by both layers. The second layer is first: it does not depend on the first. `found` has the host's
    /// addresses on it, and `pins` is the directory of the fence's links.
    ///
    /// # Errors
    /// If a layer cannot be had.
    pub fn fence(
        &self,
        kernel: &mut Kernel,
        membership: &mut Membership,
        found: &Devices,
        pins: &Path,
    ) -> Result<()> {
        let context = || format!("the network device {} is not fenced", self.name);
        membership.guard(self.index).with_context(context)?;
        for mac in &self.macs {
            let guarded = membership.guard_mac(self.index, mac.number());
            guarded.with_context(context)?;
        }
        let here = found.with_index(self.index);
        let gateways = here.map(|here| found.gateways(here)).unwrap_or_default();
        let wanted = self.wanted(membership.slot(), &gateways);
        attach(kernel, None, &wanted, pins).with_context(context)?;
        Ok(())
    }

    /// Deletes it if it was made for the fence. Whoever still has its descriptor has no device then. To be called before its
    /// programs are detached.
    ///
    /// # Errors
    /// If the kernel refuses it.
    pub fn delete_made(&self) -> Result<()> {
        let is_here = netns().ok() == Some(self.netns);
        if !self.is_made || !is_here || if_nametoindex(&*self.name).ok() != Some(self.index) {
            return Ok(());
        }
        let deleted = devices::delete(self.index);
        deleted.with_context(|| format!("cannot delete the network device {}", self.name))
    }

    /// Whether the fence has ended with it: it is gone. Devices of other network namespaces than this process's are not looked
    /// at.
    #[must_use]
    pub fn has_ended_fence(&self) -> bool {
        let has = |devices: Interfaces| devices.iter().any(|device| device.index() == self.index);
        self.is_of_pod
            && netns().ok() == Some(self.netns)
            && if_nameindex().is_ok_and(|devices| !has(devices))
    }

    /// Why packets that the host's rules send to itself are not judged; `None` if they are, or if this process is in another
    /// network namespace and cannot know.
    #[must_use]
    pub fn why_half_fenced(&self, pins: &Pins) -> Option<String> {
        if netns().ok() != Some(self.netns) {
            return None;
        }
        match pins.has_second_layer() {
            Ok(true) => None,
            Ok(false) => Some("the second layer was removed".to_owned()),
            Err(error) => Some(format!("{error:#}")),
        }
    }

    /// Why its frames are not all judged, or that it is gone; `None` if they are, or if this process is in another network
    /// namespace and cannot know. `pins` is the directory of the fence's links.
    #[must_use]
    pub fn why_unfenced(&self, pins: &Path) -> Option<String> {
        if netns().ok() != Some(self.netns) {
            return None;
        }
        let found = if_nametoindex(&*self.name).ok();
        if found.is_some_and(|found| found != self.index) {
            return Some("it was made anew".to_owned());
        }
        let states = match state(None, pins, self.index) {
            Ok(states) => states,
            Err(error) => return Some(format!("{error:#}")),
        };
        match (states.frame, found) {
            // The programs see what is sent to the guest only to let the answers come back.
            (State::First, _) => None,
            (State::Severed, None) => Some("there is no such device any more".to_owned()),
            (why, _) => Some(why.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device() -> FencedDevice {
        FencedDevice {
            name: "t0".into(),
            index: 7,
            netns: 4,
            is_reversed: false,
            macs: vec!["52:54:00:12:34:56".parse().unwrap()],
            learns_mac: false,
            learnt: None,
            is_made: false,
            is_of_pod: false,
        }
    }

    #[test]
    fn the_programs_are_told_what_the_device_is() {
        let none = BTreeSet::new();
        let some = BTreeSet::from(["192.0.2.1".parse().unwrap()]);
        let mut device = device();
        assert_eq!((device.flags(&none), device.flags(&some)), (0, SERVED));
        let wanted = device.wanted(3, &some);
        assert_eq!((wanted.index, wanted.slot), (7, 3));
        assert_eq!(wanted.macs, [0x5254_0012_3456]);
        assert_eq!(wanted.gateways.len(), 1);
        (device.is_reversed, device.learns_mac) = (true, true);
        assert_eq!(device.flags(&none), LEARNS_MAC | REVERSED);
        device.learnt = Some("52:54:00:12:34:57".parse().unwrap());
        let macs = device.wanted(3, &some).macs;
        assert_eq!(macs, [0x5254_0012_3456, 0x5254_0012_3457]);
        assert_eq!(device.flags(&some), LEARNS_MAC | REVERSED | SERVED);
        device.is_of_pod = true;
        assert_eq!(device.flags(&some), LEARNS_MAC | REVERSED);
    }

    #[test]
    fn the_description_has_all_of_it() {
        let text = serde_json::to_string(&device()).unwrap();
        assert!(text.contains("\"52:54:00:12:34:56\""), "{text}");
        assert_eq!(
            serde_json::from_str::<FencedDevice>(&text).unwrap(),
            device()
        );
    }
}

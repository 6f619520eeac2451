//! The network devices of a fence while the command runs: follows the host's addresses on them, notices what happens to
//! them, fences one again that was made anew, and takes the drops of the second layer to the record.

mod second_layer;
mod watched;

use std::{
    collections::BTreeSet,
    future::pending,
    net::IpAddr,
    path::PathBuf,
    sync::{Arc, mpsc::Sender},
};

use anyhow::{Context as _, Result};

use self::{
    second_layer::SecondLayer,
    watched::{Finding, Watched},
};
use crate::{
    base::{mac::Mac, message_queue::MessageQueue},
    fence::devices::FencedDevice,
    host::{
        devices::{self, Devices, FollowedDevices, Kind},
        subscription::Subscription,
    },
    kernel::{
        Kernel, device,
        device::state::{State, state},
        local_in::{Drained, Membership},
    },
    record::devices::DeviceNames,
    supervise::recurring_error::RecurringError,
};

/// Writes the devices into the description of the fence.
pub type Describe<'a> = Box<dyn Fn(&[FencedDevice]) -> Result<()> + 'a>;

/// What the supervisor needs to watch the devices of a fence.
pub struct Given<'a> {
    /// The devices, which are fenced.
    pub devices: Vec<FencedDevice>,
    /// The devices of the host.
    pub host: Subscription<FollowedDevices>,
    /// The fence in the second layer.
    pub membership: Membership,
    /// The directory of the fence's links.
    pub pins: PathBuf,
    /// Takes the drops of the second layer.
    pub drops: Sender<Drained>,
    /// The names of the devices, for the record.
    pub names: DeviceNames,
    /// Describes them after a change.
    pub describe: Describe<'a>,
}

/// Watches the devices of a fence.
pub struct DeviceWatch<'a> {
    watched: Vec<Watched>,
    host: Subscription<FollowedDevices>,
    second_layer: SecondLayer,
    pins: PathBuf,
    names: DeviceNames,
    describe: Describe<'a>,
    following: RecurringError,
    describing: RecurringError,
    is_described: bool,
}

impl<'a> DeviceWatch<'a> {
    /// Watches devices that are fenced now.
    #[must_use]
    pub fn new(given: Given<'a>) -> Self {
        Self {
            watched: given.devices.into_iter().map(Watched::new).collect(),
            host: given.host,
            second_layer: SecondLayer::new(given.membership, given.drops),
            pins: given.pins,
            names: given.names,
            describe: given.describe,
            following: RecurringError::default(),
            describing: RecurringError::default(),
            is_described: true,
        }
    }

    /// Waits until a device of the host may have changed. Cancel-safe.
    pub async fn changed(watch: Option<&mut Self>) {
        match watch {
            Some(watch) => watch.host.changed().await,
            None => pending().await,
        }
    }

    /// Looks at the devices, and does what is to be done. Returns whether a device is newly found to be unfenced. To be
    /// called after a change, and once per second.
    pub async fn look(&mut self, kernel: &mut Kernel, messages: &MessageQueue) -> bool {
        let read = self.host.reading().await;
        let read =
            read.context("error: the network devices of the fence are not followed; retrying");
        let mended = "the network devices of the fence are followed again";
        let found = self.following.report(read, mended, messages);
        let mut is_damaged = false;
        if let Some(found) = found {
            for place in 0..self.watched.len() {
                is_damaged |= self.look_at(place, kernel, &found, messages).await;
            }
        }
        if !self.is_described {
            let devices: Vec<_> = self.watched.iter().map(|one| one.device.clone()).collect();
            let described =
                (self.describe)(&devices).context("error: `ps` may show devices as they were");
            let mended = "`ps` shows the devices as they are again";
            self.is_described = self
                .describing
                .report(described, mended, messages)
                .is_some();
        }
        self.drain(messages);
        is_damaged | self.second_layer.look(messages)
    }

    /// Takes what the second layer has dropped since the last time to the record.
    pub fn drain(&mut self, messages: &MessageQueue) {
        self.second_layer.drain(messages);
    }

    async fn look_at(
        &mut self,
        place: usize,
        kernel: &mut Kernel,
        found: &Arc<Devices>,
        messages: &MessageQueue,
    ) -> bool {
        let (index, name) = {
            let device = &self.watched[place].device;
            (device.index, device.name.clone())
        };
        let finding = match (found.with_index(index), found.named(&name)) {
            (Some(here), _) => {
                if here.name != name {
                    self.watched[place].device.name.clone_from(&here.name);
                    self.names.set(index, &here.name);
                    self.is_described = false;
                }
                let gateways = found.gateways(here);
                let followed = self.follow(place, kernel, gateways);
                let followed = followed.with_context(|| format!("error: the network device {name}"));
                let mended = format!("the network device {name} is followed again");
                self.watched[place].following.report(followed, mended, messages);
                self.judge(place, kernel, found)
            }
            (None, Some(anew)) => {
                let (now, is_up, kind) = (anew.index, anew.is_up, anew.kind.clone());
                let fenced = self.fence_again(place, kernel, found, now, &kind);
                match fenced {
                    Ok(()) => {
                        let late = if is_up { ", after it was set up" } else { "" };
                        messages.notify(format_args!(
                            "the network device {name} was made anew, and is fenced again{late}"
                        ));
                        self.watched[place].said = None;
                        None
                    }
                    Err(error) => {
                        let down = match devices::set_down(now).await {
                            Ok(()) => Finding::Down(format!("{error:#}")),
                            Err(other) => Finding::Unfenced(format!(
                                "it was made anew: {error:#}; and it cannot be set down: {other}"
                            )),
                        };
                        Some(down)
                    }
                }
            }
            (None, None) => match state(None, &self.pins, index) {
                Ok(states) if states.frame == State::Elsewhere => Some(Finding::Unfenced(
                    "it was moved to another network namespace, where only the programs at the device judge its \
                     frames, and nothing follows that host"
                        .to_owned(),
                )),
                _ => Some(Finding::Gone),
            },
        };
        let finding = match finding {
            // The reading may be from before it was removed.
            Some(found) if found != Finding::Gone && !self.exists(index, &name).await => {
                Some(Finding::Gone)
            }
            finding => finding,
        };
        self.watched[place].say(finding, messages)
    }

    /// Whether there is a device with this index, or of this name, now. If that cannot be read, there may be one.
    async fn exists(&mut self, index: u32, name: &str) -> bool {
        // One that was moved to another network namespace has its programs still.
        let states = state(None, &self.pins, index);
        if states.is_ok_and(|states| states.frame == State::Elsewhere) {
            return true;
        }
        match self.host.fresh().await {
            Ok(found) => found.with_index(index).is_some() || found.named(name).is_some(),
            Err(_) => true,
        }
    }

    /// Tells the programs the host's addresses at a device, and the second layer the MAC address of its guest.
    fn follow(
        &mut self,
        place: usize,
        kernel: &mut Kernel,
        gateways: BTreeSet<IpAddr>,
    ) -> Result<()> {
        let watched = &mut self.watched[place];
        let index = watched.device.index;
        let maps = kernel.devices();
        if watched.gateways != gateways {
            let list: Vec<IpAddr> = gateways.iter().copied().collect();
            maps.set_gateways(index, &list)?;
            let slot = self.second_layer.membership.slot();
            maps.set_flags(index, slot, watched.device.flags(&gateways))?;
            watched.gateways = gateways;
        }
        // The second layer is not told of it: the guest has chosen it, and could choose that of a router of the host.
        watched.learnt = maps.learnt_mac(index)?.map(Mac::from_number);
        Ok(())
    }

    /// Whether a device that exists is fenced. If its programs were detached, they are attached again.
    fn judge(&mut self, place: usize, kernel: &mut Kernel, found: &Devices) -> Option<Finding> {
        let device = &self.watched[place].device;
        let states = match state(None, &self.pins, device.index) {
            Ok(states) => states,
            Err(error) => return Some(Finding::Unfenced(format!("{error:#}"))),
        };
        match states.frame {
            State::First => None,
            State::Severed | State::Unpinned => {
                let (index, why) = (device.index, states.frame.to_string());
                let kind = found.with_index(index).map(|here| here.kind.clone());
                let kind = kind.unwrap_or(Kind::Card);
                let again = self.fence_again(place, kernel, found, index, &kind);
                again
                    .err()
                    .map(|error| Finding::Unfenced(format!("{why}; {error:#}")))
            }
            why => Some(Finding::Unfenced(why.to_string())),
        }
    }

    /// Fences a device of the same name, or the same device whose programs were detached.
    fn fence_again(
        &mut self,
        place: usize,
        kernel: &mut Kernel,
        found: &Devices,
        index: u32,
        kind: &Kind,
    ) -> Result<()> {
        let watched = &mut self.watched[place];
        let before = watched.device.index;
        let is_fit = match kind {
            Kind::Macvtap => watched.device.is_reversed,
            Kind::Tap | Kind::Veth => !watched.device.is_reversed,
            _ => false,
        };
        anyhow::ensure!(is_fit, "it is {kind} now");
        device::detach(kernel, before, &self.pins)?;
        if before != index {
            self.second_layer.membership.unguard(before)?;
        }
        let mut device = watched.device.clone();
        if before == index
            && let Some(mac) = watched.learnt
        {
            // It is the same guest.
            device.learnt = Some(mac);
            device.learns_mac = false;
        }
        device.is_made &= before == index;
        device.index = index;
        device.fence(kernel, &mut self.second_layer.membership, found, &self.pins)?;
        self.names.set(index, &device.name);
        watched.device = device;
        watched.gateways = BTreeSet::new();
        watched.learnt = None;
        self.is_described = false;
        Ok(())
    }
}

//! A network device that is watched, and what is said of it.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    time::{Duration, Instant},
};

use crate::{
    base::{mac::Mac, message_queue::MessageQueue},
    fence::devices::FencedDevice,
    supervise::recurring_error::RecurringError,
};

/// One device.
pub(super) struct Watched {
    pub(super) device: FencedDevice,
    /// The host's addresses that the programs know.
    pub(super) gateways: BTreeSet<IpAddr>,
    /// The learnt MAC address that the second layer knows.
    pub(super) learnt: Option<Mac>,
    /// What was said of it.
    pub(super) said: Option<Finding>,
    pub(super) following: RecurringError,
    /// Since when it is gone. A device of QEMU's own goes with its QEMU, and the fence a moment later.
    pub(super) gone: Option<Instant>,
}

/// How long a device is gone before that is said.
const PATIENCE: Duration = Duration::from_secs(2);

/// What is wrong with a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Finding {
    /// There is none of this name any more. Nothing can be sent by it.
    Gone,
    /// Its frames are not all judged.
    Unfenced(String),
    /// It was made anew and cannot be fenced, so it is down.
    Down(String),
}

impl Watched {
    /// One that is fenced now.
    pub(super) fn new(device: FencedDevice) -> Self {
        Self {
            learnt: None,
            device,
            gateways: BTreeSet::new(),
            said: None,
            following: RecurringError::default(),
            gone: None,
        }
    }

    /// Reports what is found, once. Returns whether the device is newly found to be unfenced.
    pub(super) fn say(&mut self, finding: Option<Finding>, messages: &MessageQueue) -> bool {
        match &finding {
            Some(Finding::Gone) => {
                let since = *self.gone.get_or_insert_with(Instant::now);
                if since.elapsed() < PATIENCE {
                    return false;
                }
            }
            _ => self.gone = None,
        }
        if self.said == finding {
            return false;
        }
        let name = &self.device.name;
        match &finding {
            None => messages.notify(format_args!("the network device {name} is fenced again")),
            Some(Finding::Gone) => messages.notify(format_args!(
                "the network device {name} is gone; if it is made anew, it is fenced again"
            )),
            Some(Finding::Unfenced(why)) => messages.notify(format_args!(
                "error: the network device {name} is NOT FENCED: {why}"
            )),
            Some(Finding::Down(why)) => messages.notify(format_args!(
                "error: the network device {name} was made anew and cannot be fenced, so it was set down: {why}"
            )),
        }
        let is_unfenced = matches!(finding, Some(Finding::Unfenced(_)));
        self.said = finding;
        is_unfenced
    }
}

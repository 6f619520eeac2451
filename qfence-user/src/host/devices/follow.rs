//! The network devices, as a fact that can be followed.

use std::time::Duration;

use nix::libc;
use tokio::time::{Instant, sleep_until};

use super::{DeviceError, Devices};
use crate::host::{
    addresses::{AddressError, everything},
    fact::Fact,
};

/// The announcements that can change what is read.
const GROUPS: [u32; 3] = [
    libc::RTNLGRP_LINK,
    libc::RTNLGRP_IPV4_IFADDR,
    libc::RTNLGRP_IPV6_IFADDR,
];

/// The shortest time between readings, while devices change. The first change after a rest is read at once.
const REST: Duration = Duration::from_millis(200);

/// The devices, as a fact that can be followed.
#[derive(Default)]
pub struct FollowedDevices {
    /// Opened by the first reading, and again after a failure.
    news: Option<everything::Everything>,
    read: Option<Instant>,
}

impl FollowedDevices {
    async fn dump(&mut self) -> Result<Devices, DeviceError> {
        let ended = |error| DeviceError::Ended(AddressError::Subscribe(error));
        let news = match &mut self.news {
            Some(news) => news,
            none => none.insert(everything::Everything::join(GROUPS).map_err(ended)?),
        };
        // What is announced from here on is not in the reading.
        news.discard().map_err(DeviceError::Ended)?;
        self.read = Some(Instant::now());
        Devices::read().await
    }
}

impl Fact for FollowedDevices {
    type Value = Devices;
    type Error = DeviceError;

    async fn read(&mut self) -> Result<Devices, DeviceError> {
        let read = self.dump().await;
        if read.is_err() {
            self.news = None;
        }
        read
    }

    async fn changed(&mut self) -> Result<(), DeviceError> {
        let (Some(news), Some(read)) = (&mut self.news, self.read) else {
            return Ok(());
        };
        let announced = news.next().await.map_err(DeviceError::Ended);
        if announced.is_err() {
            self.news = None;
        } else {
            sleep_until(read + REST).await;
        }
        announced
    }
}

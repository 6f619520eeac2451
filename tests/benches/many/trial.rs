//! Whether fences hold: a host and an internet with services, which each fenced process tries to reach.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use anyhow::{Result, ensure};
use tests::{
    listener::{Listener, Listeners},
    namespace::NOBODY,
    probe,
    world::{HOST_V4, HOST_V6, SERVER_V4, World},
};

use crate::{crowd::Crowd, member::Ending};

const PORT: u16 = 8080;

/// What is the host.
const HOST: [IpAddr; 3] = [HOST_V4, HOST_V6, IpAddr::V4(Ipv4Addr::LOCALHOST)];

/// A host and an internet, and what there is to reach on them.
pub(crate) struct Trial {
    pub(crate) world: World,
    host: Listeners,
    _internet: Listener,
}

impl Trial {
    pub(crate) fn new() -> Result<Self> {
        let world = World::new()?;
        let host = Listeners::everywhere(&world.host, PORT)?;
        let internet = Listener::tcp(&world.internet, SocketAddr::new(SERVER_V4, PORT))?;
        Ok(Self {
            world,
            host,
            _internet: internet,
        })
    }

    /// What each fenced process tries: the host, and at last the internet.
    pub(crate) fn destinations() -> Vec<SocketAddr> {
        let all = HOST.into_iter().chain([SERVER_V4]);
        all.map(|address| SocketAddr::new(address, PORT)).collect()
    }

    /// Of how many the host refuses whatever they try, and the internet does not.
    pub(crate) fn holding(&self, crowd: &mut Crowd) -> Result<u32> {
        self.control()?;
        let before = self.host.arrivals().len();
        let answers = crowd.ask()?;
        let arrived = self.host.arrivals().len() - before;
        // The services answer as before: they were not gone meanwhile.
        self.control()?;
        let (mut holding, mut reached) = (0, 0);
        for (number, endings) in answers {
            let Some((internet, host)) = endings.split_last() else {
                continue;
            };
            ensure!(
                *internet == Ending::Reached,
                "from fence {number} the internet is not reached: {internet:?}"
            );
            let all = |ending| host.iter().filter(|one| **one == ending).count();
            reached += all(Ending::Reached);
            if all(Ending::Refused) == HOST.len() {
                holding += 1;
            }
        }
        ensure!(
            arrived == reached,
            "{arrived} have arrived, and {reached} say so"
        );
        Ok(holding)
    }

    /// Makes sure that whoever is not fenced reaches all of it.
    fn control(&self) -> Result<()> {
        let attempts: Vec<_> = Self::destinations()
            .iter()
            .map(|to| format!("tcp/{}/{}", to.ip(), to.port()))
            .collect();
        let attempts: Vec<_> = attempts.iter().map(String::as_str).collect();
        let outside = probe::run_as(NOBODY, &self.world.host, &attempts)?;
        let all = outside.iter().all(probe::ProbeResult::is_reached);
        ensure!(all, "not reached without a fence: {outside:?}");
        Ok(())
    }
}

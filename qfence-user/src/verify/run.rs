//! Makes every attempt, without the fence and then with it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context, Result};
use serde::de::DeserializeOwned;

use super::{
    actors::{Actors, Place},
    cases::{ATTEMPTS, Case, MUST_WORK},
    device::{self, Opened},
    judge::{self, Trial},
    report::Row,
    scene::{HOST_V4, HOST_V6, Scene},
    service::{Manner, Service, talk},
    throwaway::ThrowAway,
    witness::Witness,
};

/// Both places to make attempts in, and those who look on.
pub struct Stage<'a> {
    /// The private network.
    pub scene: &'a Scene,
    /// Who sees what arrives there.
    pub witness: &'a Witness,
    /// Who makes the attempts.
    pub actors: &'a Actors,
    /// The fence.
    pub fence: &'a mut ThrowAway,
    /// Whether to leave out what is not of the short form.
    pub short: bool,
}

impl Stage<'_> {
    /// The attempts to reach the host.
    ///
    /// # Errors
    /// If one cannot be made.
    pub async fn attempts(&mut self) -> Result<Vec<Row>> {
        let mut rows = Vec::new();
        for case in self.chosen(ATTEMPTS) {
            rows.push(self.both(case, judge::attempt).await?);
        }
        for path in device::paths() {
            rows.push(self.open(path).await?);
        }
        Ok(rows)
    }

    /// What must work.
    ///
    /// # Errors
    /// If it cannot be tried.
    pub async fn must_work(&mut self) -> Result<Vec<Row>> {
        let mut rows = Vec::new();
        for case in self.chosen(MUST_WORK) {
            rows.push(self.both(case, judge::must_work).await?);
        }
        rows.extend(self.forwards().await?);
        Ok(rows)
    }

    fn chosen(&self, cases: &'static [Case]) -> impl Iterator<Item = &'static Case> + use<> {
        let (short, has_v6) = (self.short, self.scene.has_v6);
        cases
            .iter()
            .filter(move |case| case.short || !short)
            .filter(move |case| has_v6 || !case.is_v6())
    }

    async fn both(
        &mut self,
        case: &Case,
        judge: fn(&Trial, &Trial) -> judge::Verdict,
    ) -> Result<Row> {
        let without = self.attempt(Place::Outside, case.spec).await?;
        let with = self.attempt(Place::Inside, case.spec).await?;
        let verdict = judge(&without, &with);
        Ok(Row::new(case.spec, &without, with, verdict))
    }

    async fn attempt(&mut self, place: Place, spec: &str) -> Result<Trial> {
        self.witness.forget()?;
        self.fence.layers()?;
        let fence = self.fence.fence();
        let outcome = self.actors.attempt(place, fence, spec).await?;
        Ok(Trial::new(
            outcome,
            self.witness.count()?,
            self.fence.layers()?,
        ))
    }

    async fn open(&mut self, path: &str) -> Result<Row> {
        let mut trials = Vec::new();
        for place in [Place::Outside, Place::Inside] {
            self.fence.layers()?;
            let opened: Opened = self.hear(place, &["open", path]).await?;
            trials.push(opened.trial(self.fence.layers()?));
        }
        let [without, with] = <[Trial; 2]>::try_from(trials)
            .map_err(|_| anyhow::anyhow!("{path} was not tried twice"))?;
        let verdict = judge::attempt(&without, &with);
        Ok(Row::new(&format!("open {path}"), &without, with, verdict))
    }

    /// What a process of root's, whom modes of files do not stop, says in its first line.
    async fn hear<T: DeserializeOwned>(&self, place: Place, arguments: &[&str]) -> Result<T> {
        let fence = self.fence.fence();
        let mut actor = self.actors.start_as_root(place, fence, arguments)?;
        let line = actor.line().await?;
        serde_json::from_str(&line).with_context(|| format!("an odd answer: {line}"))
    }

    /// The host, and services that it forwards to.
    async fn forwards(&mut self) -> Result<Vec<Row>> {
        let outside = self.talk_to_services(Place::Outside).await?;
        let inside = self.talk_to_services(Place::Inside).await?;
        let rows = outside.into_iter().zip(inside);
        Ok(rows
            .map(|((what, without), (_, with))| {
                let verdict = judge::must_work(&without, &with);
                Row::new(&what, &without, with, verdict)
            })
            .collect())
    }

    async fn talk_to_services(&mut self, place: Place) -> Result<Vec<(String, Trial)>> {
        let mut actor = self.actors.start(place, self.fence.fence(), &["service"])?;
        let line = actor.line().await?;
        let services: Vec<Service> =
            serde_json::from_str(&line).with_context(|| format!("an odd answer: {line}"))?;
        let mut trials = Vec::new();
        for manner in Manner::ALL {
            let mut own = services.iter().filter(|service| service.manner == manner);
            let mut service = own
                .next()
                .with_context(|| format!("no service for {}", manner.name()))?;
            for host in self.hosts() {
                self.fence.layers()?;
                let mut trial = talk(*service, host);
                trial.layers = self.fence.layers()?;
                trials.push((format!("{} from {host}", manner.name()), trial));
                // Some are good for one question.
                service = own.next().unwrap_or(service);
            }
        }
        Ok(trials)
    }

    /// The addresses at which the host speaks to a service, and which it has then itself.
    fn hosts(&self) -> Vec<IpAddr> {
        let v4: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), HOST_V4];
        let v6: [IpAddr; 2] = [Ipv6Addr::LOCALHOST.into(), HOST_V6];
        let all = v4.into_iter().chain(v6);
        all.filter(|host| self.scene.has_v6 || host.is_ipv4())
            .collect()
    }
}

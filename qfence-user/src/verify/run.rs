//! Makes every attempt, without the fence and then with it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context, Result};
use serde::de::DeserializeOwned;

use super::{
    actors::{Actor, Actors, Place},
    calls::{Call, Called},
    cases::{Case, MUST_WORK, PROBES},
    container, device, groups,
    internet::{HOST_V4, HOST_V6},
    judge::{self, FILTER, Trial, Verdict},
    keys, own_listener, own_netns,
    report::Row,
    scene::Scene,
    service::{Manner, Service, talk},
    throwaway::ThrowAway,
    witness::Witness,
};

/// The time limit of each step of a probe, in milliseconds. The private network delivers packets at once.
const STEP_MS: u32 = 300;

/// The time limit of the second try, in milliseconds, for a busy machine.
const LONG_STEP_MS: u32 = 3000;

/// How often an attempt that was refused is repeated while the witness sees a packet beside it.
const REPEATS: usize = 2;

/// The participants of a verification.
pub struct Stage<'a> {
    /// The private network.
    pub scene: &'a Scene,
    /// Sees the packets that arrive on the host.
    pub witness: &'a Witness,
    /// Starts the processes that make the probes.
    pub actors: &'a Actors,
    /// The fence.
    pub fence: &'a mut ThrowAway,
    /// Whether to make only the attempts of the short form.
    pub short: bool,
}

impl Stage<'_> {
    /// Makes the attempts to reach the host.
    ///
    /// # Errors
    /// If one cannot be made.
    pub async fn attempts(&mut self) -> Result<Vec<Row>> {
        let mut rows = Vec::new();
        for case in self.chosen(PROBES) {
            rows.push(self.both(case, judge::probe).await?);
        }
        for path in device::paths() {
            rows.push(self.open(path).await?);
        }
        let calls = [vec![keys::call()], groups::calls(self.scene.has_v6)].concat();
        for call in calls {
            if call.short || !self.short {
                rows.push(self.call(&call).await?);
            }
        }
        rows.push(self.join_container().await?);
        Ok(rows)
    }

    /// Tries the traffic that must work.
    ///
    /// # Errors
    /// If an attempt cannot be made.
    pub async fn must_work(&mut self) -> Result<Vec<Row>> {
        let mut rows = Vec::new();
        for case in self.chosen(MUST_WORK) {
            rows.push(self.both(case, judge::must_work).await?);
        }
        for call in own_netns::calls() {
            if call.short || !self.short {
                rows.push(self.call_that_must_work(&call).await?);
            }
        }
        rows.extend(self.forwards().await?);
        Ok(rows)
    }

    /// Makes attempts to reach the host's listeners in a fence with a rule for `self`.
    ///
    /// # Errors
    /// If one cannot be made.
    pub async fn of_host_despite_self(&mut self) -> Result<Vec<Row>> {
        let mut rows = Vec::new();
        for case in self.chosen(own_listener::OF_THE_HOST) {
            rows.push(self.both(case, judge::probe).await?);
        }
        Ok(rows.into_iter().map(with_self).collect())
    }

    /// Tries the fence's own listeners in a fence with a rule for `self`.
    ///
    /// # Errors
    /// If one cannot be tried.
    pub async fn of_self(&mut self) -> Result<Vec<Row>> {
        let mut rows = Vec::new();
        for call in own_listener::calls(self.scene.has_v6) {
            rows.push(self.call_that_must_work(&call).await?);
        }
        Ok(rows.into_iter().map(with_self).collect())
    }

    fn chosen(&self, cases: &'static [Case]) -> impl Iterator<Item = &'static Case> + use<> {
        let (short, has_v6) = (self.short, self.scene.has_v6);
        cases
            .iter()
            .filter(move |case| case.short || !short)
            .filter(move |case| has_v6 || !case.is_v6())
    }

    /// Makes the probe without the fence and with it. An inconclusive or failed result is tried once more with a longer
    /// time limit, for a busy machine; a probe that passed is not.
    async fn both(&mut self, case: &Case, judge: fn(&Trial, &Trial) -> Verdict) -> Result<Row> {
        let row = self.both_within(STEP_MS, case, judge).await?;
        if row.verdict.is_good() || row.verdict == Verdict::Passed {
            return Ok(row);
        }
        self.both_within(LONG_STEP_MS, case, judge).await
    }

    async fn both_within(
        &mut self,
        step_ms: u32,
        case: &Case,
        judge: fn(&Trial, &Trial) -> Verdict,
    ) -> Result<Row> {
        let without = self.probe(Place::Outside, step_ms, case.spec).await?;
        let mut with = self.probe(Place::Inside, step_ms, case.spec).await?;
        let mut verdict = judge(&without, &with);
        // The witness sees every packet. One that comes beside a refused attempt can be a late one of another probe; that of a
        // layer that lets packets pass comes each time.
        for _ in 0..REPEATS {
            if verdict != Verdict::Passed || with.layers.is_empty() {
                break;
            }
            with = self.probe(Place::Inside, step_ms, case.spec).await?;
            verdict = judge(&without, &with);
        }
        if verdict == Verdict::Unproven {
            // The system call filter records nothing. Checks whether it stops the probe alone.
            let filtered = self.probe(Place::Filtered, step_ms, case.spec).await?;
            if judge::is_stopped_by_filter(&with, &filtered) {
                with.layers.push(FILTER);
                verdict = judge(&without, &with);
            }
        }
        Ok(Row::new(case.spec, &without, with, verdict))
    }

    /// Tries to join the network namespace of a container of the same user.
    async fn join_container(&mut self) -> Result<Row> {
        let words = [&["call"], &container::MAKE[..]].concat();
        let mut container = self
            .actors
            .start(Place::Outside, self.fence.fence(), &words)?;
        let made: Called = serde_json::from_str(&container.line().await?)?;
        let call = container::call(container.pid());
        if made.errno.is_some() {
            // Such containers cannot be made here.
            let trial = made.trial(&call, Place::Outside, Vec::new());
            let verdict = judge::probe(&trial, &trial);
            return Ok(Row::new(call.attempt, &trial, trial.clone(), verdict));
        }
        self.call(&call).await
    }

    async fn call(&mut self, call: &Call) -> Result<Row> {
        let mut trials = Vec::new();
        for place in [Place::Outside, Place::Inside, Place::Filtered] {
            trials.push(self.call_at(place, call).await?);
        }
        let [without, mut with, filtered] = <[Trial; 3]>::try_from(trials)
            .map_err(|_| anyhow::anyhow!("{} was not tried three times", call.attempt))?;
        if with.layers.is_empty() && judge::is_stopped_by_filter(&with, &filtered) {
            with.layers.push(call.closure);
        }
        let verdict = judge::probe(&without, &with);
        Ok(Row::new(call.attempt, &without, with, verdict))
    }

    async fn call_that_must_work(&mut self, call: &Call) -> Result<Row> {
        let without = self.call_at(Place::Outside, call).await?;
        let with = self.call_at(Place::Inside, call).await?;
        let verdict = judge::must_work(&without, &with);
        Ok(Row::new(call.attempt, &without, with, verdict))
    }

    async fn call_at(&mut self, place: Place, call: &Call) -> Result<Trial> {
        self.fence.layers()?;
        let mut words = vec!["call"];
        words.extend(call.words.iter().map(String::as_str));
        let fence = self.fence.fence();
        let actor = self.actors.start(place, fence, &words)?;
        let called: Called = Self::answer(actor).await?;
        Ok(called.trial(call, place, self.fence.layers()?))
    }

    async fn probe(&mut self, place: Place, step_ms: u32, spec: &str) -> Result<Trial> {
        self.witness.forget()?;
        self.fence.layers()?;
        let fence = self.fence.fence();
        let outcome = self.actors.probe(place, fence, step_ms, spec).await?;
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
            let opened: Called = self.hear(place, &["open", path]).await?;
            trials.push(device::trial(opened, self.fence.layers()?));
        }
        let [without, with] = <[Trial; 2]>::try_from(trials)
            .map_err(|_| anyhow::anyhow!("{path} was not tried twice"))?;
        let verdict = judge::probe(&without, &with);
        Ok(Row::new(&format!("open {path}"), &without, with, verdict))
    }

    /// Runs a process as root, because file modes would refuse other users; returns its first line.
    async fn hear<T: DeserializeOwned>(&self, place: Place, arguments: &[&str]) -> Result<T> {
        let fence = self.fence.fence();
        Self::answer(self.actors.start_as_root(place, fence, arguments)?).await
    }

    /// Parses the first line of a process.
    async fn answer<T: DeserializeOwned>(mut actor: Actor) -> Result<T> {
        let line = actor.line().await?;
        serde_json::from_str(&line).with_context(|| format!("an odd answer: {line}"))
    }

    /// Tries connections and datagrams from the host to services in the fence, as `hostfwd` sends them.
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
                // Some services answer only one request.
                service = own.next().unwrap_or(service);
            }
        }
        Ok(trials)
    }

    /// The addresses of the host that the services are reached at, which are also the source addresses.
    fn hosts(&self) -> Vec<IpAddr> {
        let v4: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), HOST_V4];
        let v6: [IpAddr; 2] = [Ipv6Addr::LOCALHOST.into(), HOST_V6];
        let all = v4.into_iter().chain(v6);
        all.filter(|host| self.scene.has_v6 || host.is_ipv4())
            .collect()
    }
}

/// Marks a row of the fence with a rule for `self`.
fn with_self(row: Row) -> Row {
    Row {
        attempt: row.attempt + own_listener::SUFFIX,
        ..row
    }
}

//! A scene with an open device, and how rows are tried on it.

use std::{
    fmt, thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};

use super::{
    evidence::{Arrived, Evidence},
    row::{Fenced, Open, Row, Said, Sender},
    scene::Scene,
    table,
    tools::{ip, set},
};
use crate::{
    probe::frame::{
        Tap,
        answer::{self, Answer, answers},
    },
    verify::netns::Netns,
};

/// How long something that is expected may take on a busy machine.
const EXPECTED: Duration = Duration::from_secs(3);
/// How long what must not arrive is waited for: the host receives a frame within the call that sends it.
const UNEXPECTED: Duration = Duration::from_millis(1);

/// The first port from which rows send.
const FIRST_PORT: u16 = 20_000;

/// A scene, its tap device and what arrives.
pub struct Bed<N> {
    /// The scene.
    pub scene: Scene<N>,
    /// Its tap device.
    pub tap: Tap,
    /// What arrives.
    pub evidence: Evidence,
    port: u16,
}

/// What came of frames.
#[derive(Debug)]
pub struct Outcome {
    /// What arrived.
    pub arrived: Arrived,
    /// What was answered, each kind once.
    pub answers: Vec<Answer>,
    /// The frames that answer.
    frames: Vec<Vec<u8>>,
}

impl<N: AsRef<Netns>> Bed<N> {
    /// Gives the host of a scene the rules that the rows need, and opens the device.
    ///
    /// # Errors
    /// If the kernel refuses something, or the scene does not become quiet.
    pub fn new(scene: Scene<N>) -> Result<Self> {
        table::prepare(&scene).context("give the host its rules")?;
        let tap = scene.open()?;
        let mut evidence = scene.evidence()?;
        evidence.settle()?;
        tap.drain()?;
        Ok(Self {
            scene,
            tap,
            evidence,
            port: FIRST_PORT,
        })
    }

    /// Sends the frames of a row, and waits for what is expected, or else for nothing.
    ///
    /// # Errors
    /// If the host's device did not receive the frames.
    pub fn send(&mut self, row: &Row, is_expected: impl Fn(&Outcome) -> bool) -> Result<Outcome> {
        let host = self.scene.host.as_ref();
        if let Some((name, value, _)) = row.parameter {
            set(host, name, value)?;
        }
        if let Some(address) = row.address {
            ip(host, &format!("address add {address} dev nic2\n"))?;
        }
        let outcome = self.send_prepared(row, is_expected);
        let host = self.scene.host.as_ref();
        if let Some((name, _, after)) = row.parameter {
            set(host, name, after)?;
        }
        if let Some(address) = row.address {
            ip(host, &format!("address del {address} dev nic2\n"))?;
        }
        outcome.with_context(|| row.name.clone())
    }

    fn send_prepared(
        &mut self,
        row: &Row,
        is_expected: impl Fn(&Outcome) -> bool,
    ) -> Result<Outcome> {
        self.tap.drain()?;
        self.port += 1;
        let before = self.evidence.arrived()?;
        let frames = (row.frames)(&Sender { port: self.port });
        ensure!(!frames.is_empty(), "no frames");
        let count = frames.len() as u64;
        for frame in frames {
            self.tap.send(&frame)?;
        }
        let begun = Instant::now();
        let mut received = Vec::new();
        loop {
            thread::sleep(UNEXPECTED);
            let mut frames = self.tap.drain()?;
            // A server may answer an earlier row late.
            frames.retain(|frame| {
                answer::port(frame).is_none_or(|port| port < FIRST_PORT || port == self.port)
            });
            received.extend(frames);
            let outcome = Outcome {
                arrived: self.evidence.arrived()?.since(before),
                answers: answers(&received),
                frames: received
                    .iter()
                    .filter(|frame| answer::read(frame).is_some())
                    .map(|frame| frame.bytes.clone())
                    .collect(),
            };
            if is_expected(&outcome) || begun.elapsed() >= EXPECTED {
                ensure!(
                    outcome.arrived.sent >= count,
                    "the host's device did not receive it: {}",
                    outcome.arrived
                );
                return Ok(outcome);
            }
        }
    }

    /// Tries rows without a fence, and returns what is wrong.
    ///
    /// # Errors
    /// If frames cannot be sent.
    pub fn control(&mut self, rows: &[Row]) -> Result<Vec<String>> {
        let mut wrong = Vec::new();
        for row in rows {
            let outcome = self.send(row, |outcome| row.shows(outcome))?;
            if !row.shows(&outcome) {
                wrong.push(format!(
                    "control: {}: not {:?}: {outcome}",
                    row.name, row.open
                ));
            }
        }
        Ok(wrong)
    }

    /// Tries rows with a fence, and returns what is wrong.
    ///
    /// # Errors
    /// If frames cannot be sent.
    pub fn fenced(&mut self, rows: &[Row]) -> Result<Vec<String>> {
        let mut wrong = Vec::new();
        for row in rows {
            let outcome = self.send(row, |outcome| row.is_held(outcome))?;
            if !row.is_held(&outcome) {
                wrong.push(format!(
                    "fenced: {}: not {:?}: {outcome}",
                    row.name, row.fenced
                ));
            }
        }
        Ok(wrong)
    }
}

impl Row {
    /// Whether it shows that the frames arrived.
    #[must_use]
    pub fn shows(&self, outcome: &Outcome) -> bool {
        let arrived = &outcome.arrived;
        match self.open {
            Open::Delivered => arrived.delivered > 0,
            Open::Answered(answer) => outcome.answers.contains(&answer),
            Open::Others => arrived.others > 0,
            Open::Internet => arrived.internet > 0,
            Open::Neighbour => arrived.neighbour > 0,
            Open::Sent => arrived.sent > 0 && arrived.delivered == 0,
        }
    }

    /// Whether the frames came to what they are to come to in a fence.
    #[must_use]
    pub fn is_held(&self, outcome: &Outcome) -> bool {
        let arrived = &outcome.arrived;
        match self.fenced {
            Fenced::Through => self.shows(outcome),
            Fenced::Unanswered => outcome.answers.is_empty(),
            Fenced::NotForTheHost => arrived.delivered == 0 && outcome.answers.is_empty(),
            Fenced::Refused(said) => {
                let nowhere = arrived.delivered == 0
                    && arrived.others == 0
                    && arrived.internet == 0
                    && arrived.neighbour == 0;
                let is_said = matches!(
                    (said, &outcome.answers[..]),
                    (Said::Reset, [Answer::Reset])
                        | (Said::Prohibited, [Answer::Prohibited])
                        | (Said::Nothing, [])
                        | (Said::Either, [] | [Answer::Reset | Answer::Prohibited])
                );
                nowhere && is_said
            }
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}; answers {:?}", self.arrived, self.answers)?;
        for frame in &self.frames {
            write!(out, ", {frame:02x?}")?;
        }
        Ok(())
    }
}

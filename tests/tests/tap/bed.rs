//! A scene with an open device, and how rows are tried on it.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use tests::{
    fence::Fence,
    run::without_sudo,
    shell::Shell,
    tap::{
        Kind, Scene, Tap,
        answer::{self, Answer, answers},
        evidence::{Arrived, Evidence},
        scene::TAP,
    },
};

use super::{
    row::{Fenced, Open, Row, Said, Sender},
    table,
};

/// How long something that is expected may take.
const EXPECTED: Duration = Duration::from_millis(500);
/// How long what must not arrive is waited for: the host receives a frame within the call that sends it.
const UNEXPECTED: Duration = Duration::from_millis(1);

/// The first port from which rows send.
const FIRST_PORT: u16 = 20_000;

/// The MAC address of the guest, as it is given to a fence.
pub(crate) const GUEST_MAC: &str = "02:00:00:00:00:10";

/// A scene, its tap device and what arrives.
pub(crate) struct Bed {
    pub(crate) scene: Scene,
    pub(crate) tap: Tap,
    pub(crate) evidence: Evidence,
    port: u16,
}

/// What came of frames.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) arrived: Arrived,
    pub(crate) answers: Vec<Answer>,
    /// The frames that answer.
    frames: Vec<Vec<u8>>,
}

impl Bed {
    pub(crate) fn new(kind: Kind) -> Result<Self> {
        let scene = Scene::new(kind)?;
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
    pub(crate) fn send(
        &mut self,
        row: &Row,
        is_expected: impl Fn(&Outcome) -> bool,
    ) -> Result<Outcome> {
        if let Some((name, value, _)) = row.parameter {
            self.scene.host.sysctl(name, value)?;
        }
        if let Some(address) = row.address {
            self.scene
                .host
                .ip(&format!("address add {address} dev nic2"))?;
        }
        let outcome = self.send_prepared(row, is_expected);
        if let Some((name, _, after)) = row.parameter {
            self.scene.host.sysctl(name, after)?;
        }
        if let Some(address) = row.address {
            self.scene
                .host
                .ip(&format!("address del {address} dev nic2"))?;
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
    pub(crate) fn control(&mut self, rows: &[Row]) -> Result<Vec<String>> {
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
    pub(crate) fn fenced(&mut self, rows: &[Row]) -> Result<Vec<String>> {
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

    /// A shell in a fence with the device.
    pub(crate) fn fence(&self, label: &str, options: &[&str]) -> Result<(Fence, Shell)> {
        fence(&self.scene, label, options)
    }
}

/// A shell in a fence with the tap device of a scene.
pub(crate) fn fence(scene: &Scene, label: &str, options: &[&str]) -> Result<(Fence, Shell)> {
    let fence = Fence::new(label)?
        .with(&["--device", TAP, "--mac", GUEST_MAC])
        .with(options);
    let mut command = fence.command(&scene.host, "sh");
    without_sudo(&mut command);
    let shell = Shell::start(command)?;
    Ok((fence, shell))
}

/// The only row of a table with this name.
pub(crate) fn named<'a>(rows: &'a [Row], name: &str) -> Result<&'a Row> {
    rows.iter()
        .find(|row| row.name == name)
        .with_context(|| format!("no row {name}"))
}

impl Row {
    /// Whether it shows that the frames arrived.
    pub(crate) fn shows(&self, outcome: &Outcome) -> bool {
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
    pub(crate) fn is_held(&self, outcome: &Outcome) -> bool {
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

impl std::fmt::Display for Outcome {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{}; answers {:?}", self.arrived, self.answers)?;
        for frame in &self.frames {
            write!(out, ", {frame:02x?}")?;
        }
        Ok(())
    }
}

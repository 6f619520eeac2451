//! The rows of the table of frames.

use comfy_table::{Table, presets::NOTHING};
use serde::Serialize;

use super::{
    judge::{Refusal, Trials},
    row, scene,
};
use crate::verify::{
    judge::{End, Verdict},
    report::word,
};

/// One row: the trials of some frames on one device, and the verdict.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Row {
    /// The frames, in words.
    pub frame: String,
    /// How the device is connected.
    pub device: scene::Link,
    /// The result without a fence.
    pub without: End,
    /// The result in a fence.
    pub with: End,
    /// The layers that hold the frames alone.
    pub layers: Vec<&'static str>,
    /// What the guest is told of the refusal, if anything.
    pub answer: Option<Refusal>,
    /// The verdict.
    pub verdict: Verdict,
}

impl Row {
    /// The row of these trials, with their verdict.
    #[must_use]
    pub fn new(row: &row::Row, device: scene::Link, trials: &Trials, verdict: Verdict) -> Self {
        Self {
            frame: row.name.clone(),
            device,
            without: trials.without.end,
            with: trials.with.end,
            layers: trials.layers(),
            answer: trials.with.answer,
            verdict,
        }
    }

    /// Whether two rows differ only in their devices.
    fn is_like(&self, other: &Self) -> bool {
        let device = self.device;
        *self
            == Self {
                device,
                ..other.clone()
            }
    }
}

/// The table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Devices {
    /// The rows; none in the short form.
    pub rows: Vec<Row>,
    /// Why no frame can be tried on this host, if so.
    pub untried: Option<String>,
}

impl Devices {
    /// All verdicts.
    pub fn verdicts(&self) -> impl Iterator<Item = Verdict> {
        self.rows.iter().map(|row| row.verdict)
    }

    /// Whether frames were stopped, others arrived that must, and each layer was seen to hold some alone.
    #[must_use]
    pub fn is_shown(&self) -> bool {
        let is_there = |wanted| self.verdicts().any(|verdict| verdict == wanted);
        let holds = |layer| {
            let stopped = |row: &&Row| row.verdict == Verdict::Stopped;
            let mut rows = self.rows.iter().filter(stopped);
            rows.any(|row| row.layers == [layer])
        };
        is_there(Verdict::Stopped)
            && is_there(Verdict::Works)
            && holds("frame")
            && holds("local_in")
    }

    /// The table as text; empty if there is nothing in it.
    #[must_use]
    pub fn text(&self) -> String {
        let mut lines: Vec<String> = Vec::new();
        if !self.rows.is_empty() {
            lines.extend(self.table().lines().map(|line| line.trim_end().to_owned()));
        }
        if let Some(why) = &self.untried {
            lines.push(format!(
                "No frame of a guest with a tap device was tried on this host: {why}"
            ));
        }
        lines.join("\n")
    }

    fn table(&self) -> Table {
        let mut table = Table::new();
        table.load_preset(NOTHING);
        table.set_header([
            "FRAME OF A GUEST",
            "DEVICE",
            "WITHOUT",
            "WITH",
            "LAYER",
            "ANSWER",
            "VERDICT",
        ]);
        for (at, row) in self.rows.iter().enumerate() {
            let is_like = |other: &&Row| other.frame == row.frame && row.is_like(other);
            if self.rows[..at].iter().any(|other| is_like(&other)) {
                continue;
            }
            let device = match self.rows[at + 1..].iter().find(is_like) {
                Some(_) => "both",
                None => row.device.name(),
            };
            let layers = row.layers.join("+");
            table.add_row([
                row.frame.as_str(),
                device,
                word(row.without),
                word(row.with),
                if layers.is_empty() { "-" } else { &layers },
                row.answer.map_or("-", Refusal::name),
                row.verdict.name(),
            ]);
        }
        table
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify::devices::scene::Link;

    fn row(device: Link, layers: &[&'static str], verdict: Verdict) -> Row {
        Row {
            frame: "tcp to 10.50.0.1".into(),
            device,
            without: End::Reached,
            with: End::Nothing,
            layers: layers.to_vec(),
            answer: Some(Refusal::Reset),
            verdict,
        }
    }

    fn devices(rows: Vec<Row>) -> Devices {
        Devices {
            rows,
            untried: None,
        }
    }

    #[test]
    fn rows_that_are_alike_for_both_devices_are_one_line() {
        let of = |layers: &[&'static str]| {
            let routed = row(Link::Routed, &["frame"], Verdict::Stopped);
            let bridged = row(Link::Bridged, layers, Verdict::Stopped);
            devices(vec![routed, bridged]).text()
        };
        let alike = of(&["frame"]);
        assert_eq!(alike.lines().count(), 2, "{alike}");
        let line = " tcp to 10.50.0.1  both    reached  nothing  frame  reset   stopped";
        assert_eq!(alike.lines().nth(1), Some(line));
        let different = of(&["frame", "local_in"]);
        assert_eq!(different.lines().count(), 3, "{different}");
        assert!(different.contains("  routed   "), "{different}");
        assert!(different.contains("  bridged  "), "{different}");
    }

    #[test]
    fn each_layer_must_hold_something_alone() {
        use Verdict::{Stopped, Works};
        let of = |layers: [&[&'static str]; 2], works| {
            let [first, second] = layers.map(|layers| row(Link::Routed, layers, Stopped));
            devices(vec![first, second, row(Link::Routed, &[], works)])
        };
        assert!(of([&["frame"], &["local_in"]], Works).is_shown());
        assert!(!of([&["frame"], &["local_in"]], Stopped).is_shown());
        assert!(!of([&["frame"], &["frame", "local_in"]], Works).is_shown());
        assert!(!of([&["frame", "local_in"], &["local_in"]], Works).is_shown());
        assert!(!Devices::default().is_shown());
    }

    #[test]
    fn the_reason_why_nothing_was_tried_is_below_the_table() {
        assert_eq!(Devices::default().text(), "");
        let untried = Devices {
            untried: Some("no nft".into()),
            ..Devices::default()
        };
        assert!(untried.text().ends_with("was tried on this host: no nft"));
    }
}

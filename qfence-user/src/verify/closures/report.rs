//! The rows of the table of closures.

use comfy_table::{Table, presets::NOTHING};
use serde::Serialize;

use super::{
    judge::{Facts, Outcome},
    promise::{Attempt, Mechanism},
};
use crate::verify::judge::Verdict;

/// An attempt in one kind of fence.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Cell {
    /// The outcome: `done`, or the name of the error.
    pub outcome: Outcome,
    /// The verdict.
    pub verdict: Verdict,
}

/// One row: an attempt without a fence, in a fence, and in one with `--strict`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// The attempt, in words.
    pub attempt: &'static str,
    /// The outcome without a fence.
    pub without: Outcome,
    /// In a fence without options.
    pub default: Cell,
    /// In a fence with `--strict`; `None` if that did not start.
    pub strict: Option<Cell>,
    /// What closes it, if anything does.
    pub mechanism: Option<Mechanism>,
}

impl Row {
    /// The row of an attempt with these outcomes.
    #[must_use]
    pub fn new(
        attempt: &Attempt,
        facts: &Facts,
        without: Outcome,
        default: Outcome,
        strict: Option<Outcome>,
    ) -> Self {
        Self {
            attempt: attempt.name,
            without,
            default: Cell {
                outcome: default,
                verdict: facts.in_default(attempt, without, default),
            },
            strict: strict.map(|strict| Cell {
                outcome: strict,
                verdict: facts.in_strict(attempt, without, strict),
            }),
            mechanism: attempt.mechanism,
        }
    }

    /// The verdicts of the row.
    pub fn verdicts(&self) -> impl Iterator<Item = Verdict> {
        let cells = [Some(self.default), self.strict].into_iter().flatten();
        cells.map(|cell| cell.verdict)
    }
}

/// The table.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Closures {
    /// The rows; none in the short form.
    pub rows: Vec<Row>,
    /// Why no command starts with `--strict` here, if so.
    pub strict_error: Option<String>,
}

impl Closures {
    /// All verdicts.
    pub fn verdicts(&self) -> impl Iterator<Item = Verdict> {
        self.rows.iter().flat_map(Row::verdicts)
    }

    /// The table as text; empty if there are no rows.
    #[must_use]
    pub fn text(&self) -> String {
        if self.rows.is_empty() {
            return String::new();
        }
        let mut table = Table::new();
        table.load_preset(NOTHING);
        table.set_header([
            "WAY OUT THAT IS NO PACKET",
            "WITHOUT",
            "DEFAULT",
            "STRICT",
            "CLOSED BY",
        ]);
        for row in &self.rows {
            table.add_row([
                row.attempt,
                &row.without.to_string(),
                &words(row.default),
                &row.strict.map_or("-".into(), words),
                &row.mechanism.map_or("-".into(), |by| by.to_string()),
            ]);
        }
        let mut lines: Vec<String> = table
            .lines()
            .map(|line| line.trim_end().to_owned())
            .collect();
        if let Some(error) = &self.strict_error {
            lines.push(format!(
                "No command starts with --strict on this host: {error}"
            ));
        }
        lines.join("\n")
    }
}

/// The outcome, and the verdict where the outcome does not show it.
fn words(Cell { outcome, verdict }: Cell) -> String {
    match verdict {
        Verdict::Stopped | Verdict::Works | Verdict::Open => outcome.to_string(),
        Verdict::Untried => verdict.name().to_owned(),
        Verdict::Passed | Verdict::Broken | Verdict::Unproven => {
            format!("{outcome}: {}", verdict.name())
        }
    }
}

#[cfg(test)]
mod tests {
    use nix::errno::Errno;

    use super::*;

    fn closures(default: Verdict) -> Closures {
        let refused = Outcome::Failed(Errno::EACCES as i32);
        let outcome = match default {
            Verdict::Passed => Outcome::Done,
            _ => refused,
        };
        Closures {
            rows: vec![Row {
                attempt: "read the memory of a process",
                without: Outcome::Done,
                default: Cell {
                    outcome,
                    verdict: default,
                },
                strict: None,
                mechanism: Some(Mechanism::Domain),
            }],
            strict_error: None,
        }
    }

    #[test]
    fn a_cell_has_a_word_for_a_bad_verdict() {
        let row = |verdict| {
            let text = closures(verdict).text();
            text.lines().nth(1).unwrap_or_default().to_owned()
        };
        assert_eq!(
            row(Verdict::Stopped),
            " read the memory of a process  done     EACCES   -       landlock"
        );
        assert!(row(Verdict::Passed).contains("  done: PASSED  "));
        assert!(row(Verdict::Untried).contains("  untried  "));
    }

    #[test]
    fn the_short_form_has_none() {
        assert_eq!(Closures::default().text(), "");
        let error = Closures {
            strict_error: Some("too old".into()),
            ..closures(Verdict::Stopped)
        };
        assert!(error.text().ends_with("on this host: too old"));
    }
}

//! Turns samples and keys into the content of the view: pure logic.

use std::{
    cmp::Reverse,
    collections::{HashMap, VecDeque},
    time::Instant,
};

use super::{
    destinations::{Destination, most_frequent, names},
    keys::{Key, Order, Over},
    row::{Rates, Row},
    sample::{Close, Sample, Seen},
};
use crate::{
    kernel::snapshot::Snapshot,
    record::line::{Body, Line},
    stored_policy::resolved_names::NamesOfAddresses,
};

/// The number of rates in the sparkline.
const HISTORY: usize = 60;

/// The content of the view.
#[derive(Debug, Default)]
pub struct Model {
    rows: Vec<Row>,
    before: HashMap<String, (Instant, Snapshot, u64)>,
    close: Option<Close>,
    selected: Option<String>,
    order: Order,
    filter: String,
    is_typing: bool,
    is_paused: bool,
    over: Over,
}

impl Model {
    /// Takes a new sample, unless the view is paused.
    pub fn take(&mut self, sample: Sample) {
        if self.is_paused {
            return;
        }
        let mut history: HashMap<String, VecDeque<u64>> = std::mem::take(&mut self.rows)
            .into_iter()
            .map(|row| (row.name, row.history))
            .collect();
        let mut before = HashMap::new();
        for Seen {
            name,
            condition,
            counted,
            lookups,
        } in sample.fences
        {
            let mut history = history.remove(&name).unwrap_or_default();
            let last = self.before.get(&name);
            let rates = counted.zip(last).and_then(|(now, (at, last, before))| {
                let passed = sample.at.saturating_duration_since(*at);
                Rates::between((last, *before), (&now, lookups), passed)
            });
            history.extend(rates.map(|rates| rates.attempts));
            while history.len() > HISTORY {
                history.pop_front();
            }
            if let Some(counted) = counted {
                before.insert(name.clone(), (sample.at, counted, lookups));
            }
            self.rows.push(Row {
                counted,
                lookups,
                rates,
                history,
                condition,
                name,
            });
        }
        self.before = before;
        self.close = sample.close;
        self.arrange();
    }

    /// Handles a key. Returns false to quit.
    pub fn press(&mut self, key: Key) -> bool {
        if key == Key::Interrupt {
            return false;
        }
        if self.is_typing {
            self.type_key(key);
            self.arrange();
            return true;
        }
        if self.over != Over::Nothing {
            self.over = Over::Nothing;
            return key != Key::Char('q');
        }
        match key {
            Key::Char('q') => return false,
            Key::Char('s') => self.order = self.order.next(),
            Key::Char('p' | ' ') => self.is_paused = !self.is_paused,
            Key::Char('/') => self.is_typing = true,
            Key::Char('r') | Key::Enter => self.over = Over::Rules,
            Key::Char('?' | 'h') => self.over = Over::Help,
            Key::Down | Key::Char('j') => self.move_by(1),
            Key::Up | Key::Char('k') => self.move_by(-1),
            Key::Escape => self.filter.clear(),
            _ => {}
        }
        self.arrange();
        true
    }

    fn type_key(&mut self, key: Key) {
        match key {
            Key::Char(character) => self.filter.push(character),
            Key::Backspace => {
                self.filter.pop();
            }
            Key::Escape => {
                self.filter.clear();
                self.is_typing = false;
            }
            _ => self.is_typing = false,
        }
    }

    fn move_by(&mut self, step: isize) {
        let rows: Vec<_> = self.rows().map(|row| row.name.clone()).collect();
        let at = rows
            .iter()
            .position(|name| Some(name) == self.selected.as_ref());
        let at = at.unwrap_or(0).saturating_add_signed(step);
        if let Some(name) = rows.get(at.min(rows.len().saturating_sub(1))) {
            self.selected = Some(name.clone());
        }
    }

    fn arrange(&mut self) {
        let order = self.order;
        let rate = |row: &Row, of: fn(&Rates) -> u64| Reverse(row.rates.as_ref().map(of));
        self.rows.sort_by(|a, b| a.name.cmp(&b.name));
        match order {
            Order::Name => {}
            Order::Rate => self.rows.sort_by_key(|row| rate(row, |of| of.attempts)),
            Order::Attempts => self.rows.sort_by_key(|row| Reverse(row.attempts())),
            Order::Traffic => self
                .rows
                .sort_by_key(|row| rate(row, |of| of.sent + of.received)),
        }
        let first = self.rows().next().map(|row| row.name.clone());
        let is_shown = self
            .rows()
            .any(|row| Some(&row.name) == self.selected.as_ref());
        if !is_shown {
            self.selected = first;
        }
    }

    /// The fences that are shown: those whose name matches the filter. If no name matches, the filter is for attempts,
    /// and all fences are shown.
    pub fn rows(&self) -> impl Iterator<Item = &Row> {
        let by_name = self.filters_names();
        self.rows
            .iter()
            .filter(move |row| !by_name || row.name.contains(&self.filter))
    }

    fn filters_names(&self) -> bool {
        self.rows.iter().any(|row| row.name.contains(&self.filter))
    }

    /// The selected fence.
    #[must_use]
    pub fn selected(&self) -> Option<&str> {
        self.selected.as_deref()
    }

    /// The row of the selected fence.
    #[must_use]
    pub fn selected_row(&self) -> Option<&Row> {
        self.rows()
            .find(|row| Some(&row.name) == self.selected.as_ref())
    }

    /// The lines of its record that match the filter, the latest first.
    pub fn latest(&self) -> impl Iterator<Item = &Line> {
        let of_selected = |close: &&Close| Some(&close.name) == self.selected.as_ref();
        let close = self.close.as_ref().filter(of_selected);
        let any = self.filters_names();
        close.into_iter().flat_map(move |close| {
            let lines = close.lines.iter().rev();
            lines.filter(move |line| any || self.is_filtered(line, &close.names))
        })
    }

    /// Whether the filter is in a line, or in a name of its destination.
    fn is_filtered(&self, line: &Line, looked_up: &NamesOfAddresses) -> bool {
        let is_in = |text: &str| text.contains(&self.filter);
        is_in(&line.to_string())
            || match &line.body {
                Body::Attempt(attempt) | Body::Repeats(attempt) => {
                    let mut names = names(&attempt.operation, looked_up).into_iter();
                    names.any(is_in)
                }
                _ => false,
            }
    }

    /// Why the names behind addresses are not known, if they cannot be read.
    #[must_use]
    pub fn unknown(&self) -> Option<&str> {
        self.close.as_ref()?.unknown.as_deref()
    }

    /// The most frequent attempts in its record, by destination, workload and rule.
    #[must_use]
    pub fn destinations(&self) -> Vec<Destination> {
        let none = NamesOfAddresses::default();
        let looked_up = self.close.as_ref().map_or(&none, |close| &close.names);
        most_frequent(self.latest(), looked_up)
    }

    /// The rules that refused the attempts shown: full text and origin of each.
    #[must_use]
    pub fn rules(&self) -> Vec<(String, String)> {
        let mut rules = Vec::new();
        let known = self.close.as_ref().map(|close| close.rules.as_slice());
        for destination in self.destinations() {
            let of = |(brief, ..): &&(String, String, String)| *brief == destination.rule;
            let rule = known.unwrap_or_default().iter().find(of).map_or_else(
                || {
                    (
                        destination.rule.clone(),
                        "built in, or from an earlier policy".to_owned(),
                    )
                },
                |(_, whole, source)| (whole.clone(), source.clone()),
            );
            if !rules.contains(&rule) {
                rules.push(rule);
            }
        }
        rules
    }

    /// The order of the fences.
    #[must_use]
    pub fn order(&self) -> Order {
        self.order
    }

    /// The filter, and whether it is being typed.
    #[must_use]
    pub fn filter(&self) -> (&str, bool) {
        (&self.filter, self.is_typing)
    }

    /// Whether the view is paused.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.is_paused
    }

    /// The overlay over the view.
    #[must_use]
    pub fn over(&self) -> Over {
        self.over
    }
}

#[cfg(test)]
pub(super) mod tests;

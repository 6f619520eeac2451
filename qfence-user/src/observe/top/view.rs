//! The view as lines of a terminal. It uses bold, reversed and marked text instead of colours.

use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::{Modifier, Style},
    text::Line,
    widgets::{Block, Clear, Paragraph},
};

use super::{
    destinations::Destination,
    keys::Over,
    model::Model,
    table::{self, cut},
};
use crate::{
    base::printable::printable,
    kernel::snapshot::{Snapshot, bytes},
};

/// The minimum size of the terminal: columns, lines.
const LEAST: (u16, u16) = (60, 12);

/// The maximum number of lines for fences.
const FENCES: u16 = 10;

const KEYS: [(&str, &str); 8] = [
    ("↑ ↓ j k", "select a fence"),
    ("s", "order by name, attempts/s, attempts, traffic"),
    ("/", "filter: by fence, or else by attempt"),
    ("Esc", "no filter"),
    ("r Enter", "the rules that refused"),
    ("p Space", "pause"),
    ("?", "these keys"),
    ("q Ctrl-C", "quit"),
];

/// Draws the view.
pub fn draw(frame: &mut Frame<'_>, model: &Model) {
    let area = frame.area();
    if area.width < LEAST.0 || area.height < LEAST.1 {
        let words = format!("needs at least {}x{}", LEAST.0, LEAST.1);
        frame.render_widget(Paragraph::new(words), area);
        return;
    }
    let fences = u16::try_from(model.rows().count()).unwrap_or(FENCES);
    let [head, table, amounts, destinations, latest, foot] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(fences.clamp(1, FENCES.min(area.height / 3)) + 1),
        Constraint::Length(2),
        Constraint::Percentage(35),
        Constraint::Fill(1),
        Constraint::Length(1),
    ])
    .areas(area);
    frame.render_widget(Paragraph::new(title(model)).style(bold()), head);
    table::draw(frame, model, table);
    draw_amounts(frame, model, amounts);
    draw_destinations(frame, model, destinations);
    draw_latest(frame, model, latest);
    frame.render_widget(Paragraph::new(footer(model)), foot);
    match model.over() {
        Over::Nothing => {}
        Over::Help => {
            let lines = KEYS.map(|(keys, what)| format!("{keys:<10} {what}"));
            draw_over(frame, "Keys", &lines);
        }
        Over::Rules => {
            let mut lines = Vec::new();
            for (rule, source) in model.rules() {
                lines.extend([rule, format!("    {source}")]);
            }
            if lines.is_empty() {
                lines.push("the record has no refusals".to_owned());
            }
            draw_over(frame, "Rules that refused", &lines);
        }
    }
}

fn title(model: &Model) -> String {
    let paused = if model.is_paused() { "  PAUSED" } else { "" };
    format!(
        "qfence  {} fences  by {}{paused}",
        model.rows().count(),
        model.order().name()
    )
}

fn footer(model: &Model) -> String {
    match model.filter() {
        (filter, true) => format!("/{filter}_"),
        ("", false) => "? keys  s order  / filter  r rules  p pause  q quit".to_owned(),
        (filter, false) => format!("/{filter}  (Esc: no filter)  ? keys  q quit"),
    }
}

fn draw_amounts(frame: &mut Frame<'_>, model: &Model, area: Rect) {
    let Some(row) = model.selected_row() else {
        return;
    };
    let lines = row
        .counted
        .as_ref()
        .map_or_else(|| vec!["the counters cannot be read".to_owned()], amounts);
    let lines: Vec<_> = lines.into_iter().map(Line::raw).collect();
    frame.render_widget(Paragraph::new(lines), area);
}

/// The allowed, refused and received traffic, in total.
fn amounts(counted: &Snapshot) -> Vec<String> {
    let Snapshot {
        sent,
        received,
        refused,
        ..
    } = counted;
    let line = |what, connects: u64, packets: u64, size: u64| {
        let [connects, packets, size] = [connects, packets, size].map(bytes);
        format!("{what:<8}{connects:>9} connects{packets:>9} packets{size:>9} bytes")
    };
    vec![
        line(
            "Allowed",
            sent.connects.saturating_add(received.connects),
            sent.packets.saturating_add(received.packets),
            sent.bytes.saturating_add(received.bytes),
        ),
        line("Refused", refused.connects, refused.packets, refused.bytes),
    ]
}

fn draw_destinations(frame: &mut Frame<'_>, model: &Model, area: Rect) {
    let of = model.selected().unwrap_or("no fence");
    let unknown = match model.unknown() {
        Some(why) => format!(" (names are not known: {})", printable(why.as_bytes())),
        None => String::new(),
    };
    let head = format!("Most frequent attempts of {of}{unknown}");
    let mut lines = vec![Line::styled(cut(&head, area.width.into()), bold())];
    for destination in model
        .destinations()
        .into_iter()
        .take(usize::from(area.height))
    {
        lines.push(Line::raw(attempts(&destination, area.width.into())));
    }
    frame.render_widget(Paragraph::new(lines), area);
}

/// The columns of the count, of a rule, and of the space between columns.
const OTHERS: usize = 9 + 20 + 2 * 2;

/// The columns of a workload.
const WORKLOAD: usize = 26;

/// The attempts to reach a destination, with its names. Their workload, if there is one, has a column of its own.
fn attempts(destination: &Destination, width: usize) -> String {
    let Destination {
        what,
        names,
        workload,
        rule,
        count,
    } = destination;
    let count = bytes(*count);
    let named = match names.as_str() {
        "" => what.clone(),
        names => format!("{what} ({names})"),
    };
    // Names give way, and the destination itself does not.
    let fitting = |least: usize, others: usize| {
        let room = width.saturating_sub(others).max(least);
        (cut(&named, room.max(what.chars().count())), room)
    };
    let text = match workload {
        None => {
            let (named, room) = fitting(44, OTHERS);
            format!("{count:>9}  {named:<room$}  {rule}")
        }
        Some(workload) => {
            let (named, room) = fitting(24, OTHERS + WORKLOAD + 2);
            let workload = cut(&printable(workload.as_bytes()), WORKLOAD);
            format!("{count:>9}  {named:<room$}  {workload:<WORKLOAD$}  {rule}")
        }
    };
    cut(&text, width)
}

fn draw_latest(frame: &mut Frame<'_>, model: &Model, area: Rect) {
    let mut lines = vec![Line::styled("Latest", bold())];
    for line in model.latest().take(usize::from(area.height)) {
        lines.push(Line::raw(cut(&line.brief(), area.width.into())));
    }
    frame.render_widget(Paragraph::new(lines), area);
}

fn draw_over(frame: &mut Frame<'_>, title: &str, lines: &[String]) {
    let area = frame.area();
    let widest = lines
        .iter()
        .map(|line| line.chars().count())
        .max()
        .unwrap_or(0);
    let width = u16::try_from(widest + 4)
        .unwrap_or(area.width)
        .min(area.width);
    let height = u16::try_from(lines.len() + 2)
        .unwrap_or(area.height)
        .min(area.height);
    let area = area.centered(Constraint::Length(width), Constraint::Length(height));
    let text: Vec<_> = lines
        .iter()
        .map(|line| Line::raw(format!(" {line}")))
        .collect();
    let block = Block::bordered().title(format!(" {title} "));
    frame.render_widget(Clear, area);
    frame.render_widget(Paragraph::new(text).block(block), area);
}

/// The style of headings.
pub(super) fn bold() -> Style {
    Style::new().add_modifier(Modifier::BOLD)
}

#[cfg(test)]
mod tests;

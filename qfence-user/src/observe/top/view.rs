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
    let mut lines = vec![Line::styled(
        format!("Most frequent attempts of {of}"),
        bold(),
    )];
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
    match workload {
        None => {
            let (named, room) = fitting(44, OTHERS);
            format!("{count:>9}  {named:<room$}  {rule}")
        }
        Some(workload) => {
            let (named, room) = fitting(24, OTHERS + WORKLOAD + 2);
            let workload = cut(&printable(workload.as_bytes()), WORKLOAD);
            format!("{count:>9}  {named:<room$}  {workload:<WORKLOAD$}  {rule}")
        }
    }
}

fn draw_latest(frame: &mut Frame<'_>, model: &Model, area: Rect) {
    let mut lines = vec![Line::styled("Latest", bold())];
    for line in model.latest().take(usize::from(area.height)) {
        lines.push(Line::raw(line.brief()));
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
mod tests {
    use std::time::Instant;

    use ratatui::{Terminal, backend::TestBackend};

    use super::*;
    use crate::{
        observe::top::{keys::Key, model::tests::sample},
        record::line::{Body, Lookup},
    };

    fn shown(model: &Model, width: u16, height: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, model)).unwrap();
        terminal.backend().to_string()
    }

    fn model() -> Model {
        let (mut model, start) = (Model::default(), Instant::now());
        model.take(sample(start, 1));
        model.press(Key::Down);
        model.take(sample(start, 2));
        model
    }

    #[test]
    fn at_80x24_there_are_fences_destinations_refusals_and_keys() {
        let screen = shown(&model(), 80, 24);
        for text in [
            "qfence  2 fences  by name",
            "  quiet             running          0        0    9.0K       0  ▁",
            "> wild              running        500      10K       1       0  █",
            "Allowed         0 connects        0 packets       20 bytes",
            "Refused         3 connects        2 packets      120 bytes",
            "Most frequent attempts of wild",
            "        2  tcp 127.0.0.1:22",
            "denied tcp 127.0.0.1:22 ",
            "? keys",
        ] {
            assert!(screen.contains(text), "{text:?} in\n{screen}");
        }
    }

    #[test]
    fn members_of_a_slice_are_told_apart() {
        let (mut model, start) = (Model::default(), Instant::now());
        let mut sample = sample(start, 1);
        let lines = &mut sample.close.as_mut().unwrap().lines;
        for (line, unit) in lines.iter_mut().zip(["web", "web", "db"]) {
            line.workload = Some(format!("unit {unit}.service").into());
        }
        model.take(sample);
        model.press(Key::Down);
        let screen = shown(&model, 80, 24);
        for (unit, port) in [("web", 22), ("web", 23), ("db", 22)] {
            let what = format!("tcp 127.0.0.1:{port}");
            let row = format!("        1  {what:<24}  unit {unit}.service");
            assert!(screen.contains(&row), "{row:?} in\n{screen}");
        }
        for key in "/of unit db".chars() {
            model.press(Key::Char(key));
        }
        let screen = shown(&model, 80, 24);
        assert!(
            !screen.contains("unit web") && screen.contains("unit db"),
            "{screen}"
        );
    }

    #[test]
    fn destinations_have_their_names_and_look_ups_are_among_them() {
        let (mut model, start) = (Model::default(), Instant::now());
        let mut sample = sample(start, 1);
        let close = sample.close.as_mut().unwrap();
        let names = ["www.example.org", "long.name.of.a.network.example"].map(str::to_owned);
        close
            .names
            .insert("127.0.0.1".parse().unwrap(), names.to_vec());
        let refused = Lookup {
            verdict: "denied".to_owned(),
            name: Some("evil.example".into()),
            kind: Some("A".into()),
            addresses: Vec::new(),
            struck: Vec::new(),
            rule: Some("deny any".into()),
            comment: None,
            lookups: 7,
        };
        let mut line = close.lines[0].clone();
        line.body = Body::Lookup(refused.into());
        close.lines.push(line);
        model.take(sample);
        model.press(Key::Down);
        let screen = shown(&model, 80, 24);
        for row in [
            "        7  lookup evil.example A                            deny any",
            "        2  tcp 127.0.0.1:22 (www.example.org, long.name.o…  deny host",
        ] {
            assert!(screen.contains(row), "{row:?} in\n{screen}");
        }
        let screen = shown(&model, 120, 24);
        let row = "  tcp 127.0.0.1:22 (www.example.org, long.name.of.a.network.example)";
        assert!(screen.contains(row), "{screen}");
        // The filter finds names that no line has.
        for key in "/network.example".chars() {
            model.press(Key::Char(key));
        }
        let screen = shown(&model, 80, 24);
        assert!(
            screen.contains("127.0.0.1:22") && !screen.contains("evil"),
            "{screen}"
        );
    }

    #[test]
    fn without_fences_it_says_so() {
        let screen = shown(&Model::default(), 80, 24);
        assert!(screen.contains("there are no fences"), "{screen}");
    }

    #[test]
    fn rules_and_keys_lie_over_it() {
        let mut model = model();
        model.press(Key::Char('r'));
        let screen = shown(&model, 80, 24);
        assert!(screen.contains("Rules that refused"), "{screen}");
        assert!(screen.contains("host (shipped, line 7)"), "{screen}");
        model.press(Key::Escape);
        model.press(Key::Char('?'));
        let screen = shown(&model, 80, 24);
        assert!(screen.contains("select a fence"), "{screen}");
    }

    #[test]
    fn no_size_is_too_much_for_it() {
        let mut model = model();
        for over in ['r', '?'] {
            model.press(Key::Char(over));
            for (width, height) in [(1, 1), (20, 5), (60, 12), (61, 13), (80, 24), (300, 100)] {
                let screen = shown(&model, width, height);
                assert_eq!(width < 60, !screen.contains("qfence"), "{screen}");
            }
            model.press(Key::Escape);
        }
        assert!(shown(&model, 30, 5).contains("at least 60x12"));
    }
}

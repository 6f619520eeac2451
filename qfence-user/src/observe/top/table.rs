//! The table of fences.

use ratatui::{
    Frame,
    layout::Rect,
    style::{Modifier, Style},
    text::Line,
    widgets::Paragraph,
};

use super::{model::Model, row::Row, view::bold};
use crate::kernel::snapshot::bytes;

/// The characters of the sparkline, from 0 to the maximum.
const SPARKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// Draws the table: a header, and as many fences as fit.
pub fn draw(frame: &mut Frame<'_>, model: &Model, area: Rect) {
    let head = format!(
        "  {:<18}{:<10}{:>8}{:>9}{:>8}{:>8}  {}",
        "NAME", "STATE", "DENIED/s", "DENIED", "SENT/s", "RECV/s", "DENIED/s BEFORE"
    );
    let mut lines = vec![Line::styled(head, bold())];
    let room = usize::from(area.height.saturating_sub(1));
    let selected = model.selected();
    let at = model
        .rows()
        .position(|row| Some(row.name.as_str()) == selected)
        .unwrap_or(0);
    // The selected fence is always shown.
    let skip = (at + 1).saturating_sub(room);
    for row in model.rows().skip(skip).take(room) {
        let is_selected = Some(row.name.as_str()) == selected;
        let text = fence(row, is_selected, usize::from(area.width));
        let style = if is_selected {
            Style::new().add_modifier(Modifier::REVERSED)
        } else {
            Style::new()
        };
        lines.push(Line::styled(text, style));
    }
    if model.rows().next().is_none() {
        lines.push(Line::raw(
            "  there are no fences; `qfence-user exec` makes one",
        ));
    }
    frame.render_widget(Paragraph::new(lines), area);
}

fn fence(row: &Row, is_selected: bool, width: usize) -> String {
    let mark = if is_selected { '>' } else { ' ' };
    let number = |number: Option<u64>| number.map_or_else(|| "-".to_owned(), bytes);
    let rates = row.rates;
    let text = format!(
        "{mark} {:<18}{:<10}{:>8}{:>9}{:>8}{:>8}  ",
        cut(&row.name, 17),
        row.condition.name(),
        number(rates.map(|rates| rates.attempts)),
        number(row.attempts()),
        number(rates.map(|rates| rates.sent)),
        number(rates.map(|rates| rates.received)),
    );
    let room = width.saturating_sub(text.chars().count());
    text + &sparks(row.history.iter().copied(), room)
}

/// The last numbers that fit, as heights.
fn sparks(numbers: impl DoubleEndedIterator<Item = u64> + Clone, room: usize) -> String {
    let most = numbers.clone().max().unwrap_or(0).max(1);
    let spark = |number: u64| {
        let height = (u128::from(number) * 7).div_ceil(u128::from(most));
        SPARKS[usize::try_from(height).unwrap_or(7).min(7)]
    };
    let mut last: Vec<char> = numbers.rev().take(room).map(spark).collect();
    last.reverse();
    last.into_iter().collect()
}

/// A text, cut off where the room ends.
pub(super) fn cut(text: &str, room: usize) -> String {
    if text.chars().count() <= room {
        return text.to_owned();
    }
    let mut cut: String = text.chars().take(room.saturating_sub(1)).collect();
    cut.push('…');
    cut
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sparks_are_as_high_as_their_numbers() {
        assert_eq!(sparks([0, 1, 4, 7].into_iter(), 10), "▁▂▅█");
        assert_eq!(sparks([0, 1, 4, 7].into_iter(), 2), "▅█");
        assert_eq!(sparks([0, 0].into_iter(), 2), "▁▁");
    }
}

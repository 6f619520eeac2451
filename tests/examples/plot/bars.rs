//! Comparisons, as bars from the line that is the first variant.

use ::tests::bench::Row;
use anyhow::Result;
use plotters::prelude::*;

use super::{
    Area,
    panels::Comparison,
    style::{self, ACCENT, FAINT, INK, OTHER},
};

/// The height of a line of text with its bar.
const LINE: i32 = 20;
/// Between two groups.
const GAP: i32 = 10;
/// The axis below.
const AXIS: i32 = 42;
/// Where the bars begin and end.
const LEFT: i32 = 330;
const RIGHT: i32 = 790;
/// Beyond these a bar is cut off, and ends in an arrow: its number tells.
const LEAST: f64 = 0.2;
const MOST: f64 = 5.0;
/// How far the labels of two marks are from each other.
const APART: i32 = 28;
/// What is on the axis at least, and where it may be marked.
const NEAR: [f64; 2] = [0.9, 1.11];
const MARKS: [f64; 15] = [
    0.2, 0.3, 0.4, 0.5, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.5, 2.0, 3.0, 4.0, 5.0,
];

/// How high all of them are.
pub(super) fn height(comparisons: &[Comparison]) -> i32 {
    let lines = |comparison: &Comparison| {
        i32::try_from(comparison.rows.len() + 1).unwrap_or(i32::MAX) * LINE + GAP
    };
    match comparisons {
        [] => 0,
        all => all.iter().map(lines).sum::<i32>() + AXIS,
    }
}

/// A logarithmic axis: half as much is as far from the line as twice as much.
struct Axis {
    least: f64,
    most: f64,
}

impl Axis {
    fn of(comparisons: &[Comparison]) -> Self {
        let rows = comparisons.iter().flat_map(|comparison| &comparison.rows);
        let ratios = rows.flat_map(|row| {
            row.ratio
                .into_iter()
                .chain(row.ratio_quartiles.into_iter().flatten())
        });
        let [least, most] = ratios.fold(NEAR, |[least, most], ratio| {
            [least.min(ratio * 0.97), most.max(ratio * 1.03)]
        });
        Self {
            least: least.max(LEAST),
            most: most.min(MOST),
        }
    }

    fn at(&self, ratio: f64) -> i32 {
        let ratio = ratio.clamp(self.least, self.most);
        let share = (ratio / self.least).ln() / (self.most / self.least).ln();
        #[expect(
            clippy::cast_possible_truncation,
            reason = "it is between the two ends"
        )]
        let offset = (f64::from(RIGHT - LEFT) * share).round() as i32;
        LEFT + offset
    }

    /// What is marked: 1, and on both sides of it what is far enough from the mark before.
    fn marks(&self) -> Vec<f64> {
        let (below, above): (Vec<_>, Vec<_>) = MARKS
            .into_iter()
            .filter(|mark| self.holds(*mark))
            .partition(|mark| *mark < 1.0);
        let mut marks = vec![1.0];
        for side in [above, below.into_iter().rev().collect()] {
            let mut last = 1.0;
            for mark in side {
                if (self.at(mark) - self.at(last)).abs() >= APART {
                    marks.push(mark);
                    last = mark;
                }
            }
        }
        marks
    }

    fn holds(&self, ratio: f64) -> bool {
        (self.least..=self.most).contains(&ratio)
    }
}

pub(super) fn draw(area: &Area<'_>, top: i32, comparisons: &[Comparison]) -> Result<()> {
    let axis = Axis::of(comparisons);
    let bottom = top + height(comparisons) - AXIS;
    for mark in axis.marks() {
        let x = axis.at(mark);
        area.draw(&PathElement::new([(x, top), (x, bottom)], FAINT))?;
        style::centred(area, &mark.to_string(), (x, bottom + 10), &INK)?;
    }
    style::centred(
        area,
        "times the first variant",
        (i32::midpoint(LEFT, RIGHT), bottom + 26),
        &INK,
    )?;
    let mut y = top;
    for Comparison { group, rows } in comparisons {
        style::bold(area, group, (20, y + LINE / 2))?;
        y += LINE;
        for row in rows {
            line(area, &axis, y + LINE / 2, row)?;
            y += LINE;
        }
        y += GAP;
    }
    let one = axis.at(1.0);
    area.draw(&PathElement::new(
        [(one, top), (one, bottom)],
        INK.stroke_width(1),
    ))?;
    Ok(())
}

/// A variant: its name, bar and figures.
fn line(area: &Area<'_>, axis: &Axis, y: i32, row: &Row) -> Result<()> {
    style::right(area, &row.variant, (LEFT - 12, y))?;
    let figure = format!("{} {}", style::figure(row.median), row.unit);
    style::left(area, &figure, (RIGHT + 90, y), &INK)?;
    let Some(ratio) = row.ratio else {
        return Ok(());
    };
    style::left(area, &style::ratio(ratio), (RIGHT + 20, y), &INK)?;
    let colour = if row.variant.starts_with("qfence") {
        ACCENT
    } else {
        OTHER
    };
    let (one, end) = (axis.at(1.0), axis.at(ratio));
    area.draw(&Rectangle::new(
        [(one.min(end), y - 6), (one.max(end), y + 6)],
        colour.filled(),
    ))?;
    if !axis.holds(ratio) {
        let tip = if ratio > 1.0 { 9 } else { -9 };
        let arrow = vec![(end, y - 9), (end + tip, y), (end, y + 9)];
        area.draw(&Polygon::new(arrow, colour.filled()))?;
    } else if let Some([low, high]) = row.ratio_quartiles {
        let (low, high) = (axis.at(low), axis.at(high));
        let whisker = |from, to| PathElement::new([from, to], INK.stroke_width(1));
        area.draw(&whisker((low, y), (high, y)))?;
        for x in [low, high] {
            area.draw(&whisker((x, y - 3), (x, y + 3)))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_keep_apart_and_the_line_is_always_one() {
        for (least, most) in [(0.9, 1.11), (0.2, 5.0), (0.98, 3.0), (0.3, 1.02)] {
            let axis = Axis { least, most };
            let mut at: Vec<_> = axis.marks().into_iter().map(|mark| axis.at(mark)).collect();
            assert!(at.contains(&axis.at(1.0)));
            at.sort_unstable();
            assert!(at.is_sorted_by(|one, next| next - one >= APART), "{at:?}");
        }
    }

    #[test]
    fn the_axis_is_logarithmic_and_ends() {
        let axis = Axis {
            least: 0.5,
            most: 2.0,
        };
        assert_eq!(axis.at(1.0), i32::midpoint(LEFT, RIGHT));
        assert_eq!((axis.at(0.0), axis.at(1e9)), (LEFT, RIGHT));
        assert!(!axis.holds(2.1));
    }
}

//! What grows with a number, as curves over the number's logarithm.

use anyhow::Result;
use plotters::{
    coord::ranged1d::{AsRangedCoord, ValueFormatter},
    prelude::*,
};

use super::{
    Area,
    panels::Chart,
    style::{self, CURVES, FAINT, INK},
};

/// The height of a chart.
pub(super) const HEIGHT: i32 = 300;
/// If figures differ by more than this, their axis is logarithmic too.
const FAR: f64 = 20.0;

pub(super) fn draw(area: &Area<'_>, chart: &Chart) -> Result<()> {
    let points = chart.curves.iter().flat_map(|curve| &curve.points);
    let mut numbers: Vec<_> = points.clone().map(|(number, _)| *number).collect();
    numbers.sort_unstable_by(f64::total_cmp);
    let (Some(&first), Some(&last)) = (numbers.first(), numbers.last()) else {
        return Ok(());
    };
    numbers.dedup();
    // What was measured is marked, and nothing between.
    let x = (first..last).log_scale().with_key_points(numbers);
    let least = points
        .clone()
        .fold(f64::MAX, |least, (_, row)| least.min(row.low));
    let most = points.fold(0.0_f64, |most, (_, row)| most.max(row.high));
    // Above the curves there is room for what they are called.
    if least > 0.0 && most / least > FAR {
        let y = (least * 0.8..most * (most / least).powf(0.35)).log_scale();
        on(area, chart, x, y)
    } else {
        on(area, chart, x, 0.0..most * 1.35)
    }
}

fn on<X, Y>(area: &Area<'_>, chart: &Chart, x: X, y: Y) -> Result<()>
where
    X: AsRangedCoord<Value = f64>,
    Y: AsRangedCoord<Value = f64>,
    X::CoordDescType: ValueFormatter<f64>,
    Y::CoordDescType: ValueFormatter<f64>,
{
    let size = ("sans-serif", 12).into_font().color(&INK);
    let mut context = ChartBuilder::on(area)
        .margin(10)
        .margin_right(24)
        .x_label_area_size(42)
        .y_label_area_size(62)
        .build_cartesian_2d(x, y)?;
    context
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(FAINT)
        .axis_style(INK)
        .label_style(size.clone())
        .x_desc(&chart.number_of)
        .y_desc(&chart.unit)
        .x_labels(6)
        .y_labels(6)
        .x_label_formatter(&|number| style::short(*number))
        .y_label_formatter(&|number| style::short(*number))
        .draw()?;
    for (curve, colour) in chart.curves.iter().zip(CURVES.into_iter().cycle()) {
        let line = curve
            .points
            .iter()
            .map(|(number, row)| (*number, row.median));
        context
            .draw_series(LineSeries::new(line.clone(), colour.stroke_width(2)).point_size(3))?
            .label(&curve.group)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour.stroke_width(2)));
        context.draw_series(line.map(|at| Circle::new(at, 3, colour.filled())))?;
        context.draw_series(curve.points.iter().map(|(number, row)| {
            PathElement::new(
                [(*number, row.low), (*number, row.high)],
                colour.stroke_width(1),
            )
        }))?;
    }
    context
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .label_font(size)
        .background_style(WHITE)
        .draw()?;
    Ok(())
}

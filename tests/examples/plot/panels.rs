//! Which rows become which part of the figure.

use ::tests::bench::{Report, Row};

/// What is drawn of one benchmark.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Panel {
    /// Groups of variants, as ratios to the first.
    pub(super) comparisons: Vec<Comparison>,
    /// Figures that grow with a number.
    pub(super) charts: Vec<Chart>,
}

/// One thing in several variants.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Comparison {
    pub(super) group: String,
    /// The first of them is what the others are compared with.
    pub(super) rows: Vec<Row>,
}

/// Things that are measured in the same unit at the same numbers of something.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Chart {
    /// Of what there are more and more, such as `prefixes`.
    pub(super) number_of: String,
    pub(super) unit: String,
    pub(super) curves: Vec<Curve>,
}

/// How one thing grows.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Curve {
    pub(super) group: String,
    /// A number, and the row for it.
    pub(super) points: Vec<(f64, Row)>,
}

/// A group is compared variant by variant, unless these are numbers of something; one that has a single variant
/// is compared with nothing, and has its place in the table alone.
pub(super) fn panel(report: &Report) -> Panel {
    let mut panel = Panel {
        comparisons: Vec::new(),
        charts: Vec::new(),
    };
    for rows in report
        .rows
        .chunk_by(|one, other| one.group == other.group)
        .filter(|rows| rows.len() > 1)
    {
        let group = rows[0].group.clone();
        let Some((number_of, points)) = numbers(rows) else {
            panel.comparisons.push(Comparison {
                group,
                rows: rows.to_vec(),
            });
            continue;
        };
        let unit = &rows[0].unit;
        let curve = Curve { group, points };
        let chart = panel
            .charts
            .iter_mut()
            .find(|chart| chart.number_of == number_of && chart.unit == *unit);
        match chart {
            Some(chart) => chart.curves.push(curve),
            None => panel.charts.push(Chart {
                number_of,
                unit: unit.clone(),
                curves: vec![curve],
            }),
        }
    }
    panel
}

/// Variants such as `10 prefixes`: what it is, and the rows by their numbers. `None` if there are not three of
/// them, in order.
fn numbers(rows: &[Row]) -> Option<(String, Vec<(f64, Row)>)> {
    let split = |row: &Row| {
        let (number, of) = row.variant.split_once(' ')?;
        Some((number.parse::<u32>().ok()?, of.to_owned()))
    };
    let split = rows.iter().map(split).collect::<Option<Vec<_>>>()?;
    let grows = split.len() > 2 && split.is_sorted_by(|(one, _), (next, _)| one < next);
    // The first may be of a single one, and be called otherwise.
    let (_, number_of) = split.last().filter(|_| grows && split[0].0 > 0)?.clone();
    let points = split.iter().zip(rows);
    let points = points.map(|((number, _), row)| (f64::from(*number), row.clone()));
    Some((number_of, points.collect()))
}

#[cfg(test)]
mod tests {
    use ::tests::bench::Series;

    use super::*;

    fn report(groups: &[(&str, &'static str, &[&str])]) -> Report {
        let mut report = Report::new("test", false).unwrap();
        for (group, unit, variants) in groups {
            let mut series = Series::new(*group, unit);
            for variant in *variants {
                series.push(variant, 2.0);
            }
            report.add(&series);
        }
        report
    }

    #[test]
    fn variants_are_compared_and_numbers_are_followed() {
        let panel = panel(&report(&[
            ("connect", "ns", &["unfenced", "qfence"]),
            ("late", "ms", &["syslog's socket"]),
            ("verdict", "ns", &["1 rule", "4 rules", "16 rules"]),
        ]));
        let [connect] = &panel.comparisons[..] else {
            panic!("one comparison");
        };
        assert_eq!((connect.group.as_str(), connect.rows.len()), ("connect", 2));
        assert_eq!(connect.rows[1].ratio, Some(1.0));
        let [chart] = &panel.charts[..] else {
            panic!("one chart");
        };
        assert_eq!(
            (chart.number_of.as_str(), chart.unit.as_str()),
            ("rules", "ns")
        );
        let numbers: Vec<_> = chart.curves[0].points.iter().map(|(n, _)| *n).collect();
        assert_eq!(numbers, [1.0, 4.0, 16.0]);
    }

    #[test]
    fn curves_of_the_same_axes_share_a_chart() {
        let prefixes: &[&str] = &["10 prefixes", "100 prefixes", "1000 prefixes"];
        let panel = panel(&report(&[
            ("compile", "ms", prefixes),
            ("put in force", "ms", prefixes),
            ("verdict", "ns", prefixes),
        ]));
        let curves = panel.charts.iter().map(|chart| chart.curves.len());
        assert_eq!(curves.collect::<Vec<_>>(), [2, 1]);
    }

    #[test]
    fn what_does_not_grow_is_compared() {
        let odd: [&[&str]; 4] = [
            &["alone", "10 prefixes", "100 prefixes"],
            &["10 rounds", "100 rounds"],
            &["30 rules", "10 rules", "20 rules"],
            // A logarithm has no place for it.
            &["0 fences", "1 fence", "2 fences"],
        ];
        for variants in odd {
            let panel = panel(&report(&[("odd", "ns", variants)]));
            assert_eq!((panel.comparisons.len(), panel.charts.len()), (1, 0));
        }
    }
}

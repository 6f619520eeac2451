//! Samples of one measurement in several variants, taken round by round.

use serde::{Deserialize, Serialize};

/// One measurement in several variants, which take turns.
#[derive(Clone, Debug)]
pub struct Series {
    group: String,
    unit: &'static str,
    samples: Vec<(String, Vec<f64>)>,
}

/// The result of one variant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// The measurement, such as `connect, UDP, IPv4, allowed`.
    pub group: String,
    /// The variant, such as `qfence`.
    pub variant: String,
    /// The unit of the figures, such as `ns`.
    pub unit: String,
    /// The median of all rounds.
    pub median: f64,
    /// The lower quartile of the rounds.
    pub low: f64,
    /// The upper quartile of the rounds.
    pub high: f64,
    /// The number of rounds.
    pub rounds: usize,
    /// The ratio to the group's first variant: the median of the ratios of all rounds. `None` for the first variant
    /// itself, and if there is no first variant.
    pub ratio: Option<f64>,
    /// The lower and the upper quartile of the rounds' ratios.
    #[serde(default)]
    pub ratio_quartiles: Option<[f64; 2]>,
}

impl Series {
    /// Makes a series without samples.
    #[must_use]
    pub fn new(group: impl Into<String>, unit: &'static str) -> Self {
        Self {
            group: group.into(),
            unit,
            samples: Vec::new(),
        }
    }

    /// Adds the sample of a variant in this round. The first variant is the one that others are compared with. Each
    /// variant must have one sample per round.
    pub fn push(&mut self, variant: &str, sample: f64) {
        match self.samples.iter_mut().find(|(name, _)| name == variant) {
            Some((_, samples)) => samples.push(sample),
            None => self.samples.push((variant.to_owned(), vec![sample])),
        }
    }

    /// The name of the measurement.
    #[must_use]
    pub fn group(&self) -> &str {
        &self.group
    }

    /// The unit of the samples.
    #[must_use]
    pub fn unit(&self) -> &'static str {
        self.unit
    }

    /// The samples of a variant.
    #[must_use]
    pub fn samples(&self, variant: &str) -> &[f64] {
        let of = self.samples.iter().find(|(name, _)| name == variant);
        of.map(|(_, samples)| samples.as_slice())
            .unwrap_or_default()
    }

    /// The ratio of one variant to another: the median of the ratios of all rounds. NaN if either was not measured.
    #[must_use]
    pub fn ratio(&self, variant: &str, of: &str) -> f64 {
        quantile(&self.ratios(variant, of), 0.5)
    }

    /// By how much [`Self::ratio`] may be wrong for the differences between rounds alone: half of the interval that
    /// contains the median 95 times of 100 (the notch of a box plot). NaN if either was not measured.
    #[must_use]
    pub fn ratio_tolerance(&self, variant: &str, of: &str) -> f64 {
        let ratios = self.ratios(variant, of);
        #[expect(clippy::cast_precision_loss, reason = "there are not that many")]
        let root = (ratios.len() as f64).sqrt();
        1.57 * (quantile(&ratios, 0.75) - quantile(&ratios, 0.25)) / root
    }

    /// The ratios of one variant to another in all rounds, sorted.
    fn ratios(&self, variant: &str, of: &str) -> Vec<f64> {
        let rounds = self.samples(variant).iter().zip(self.samples(of));
        let mut ratios: Vec<_> = rounds.map(|(one, other)| one / other).collect();
        ratios.sort_unstable_by(f64::total_cmp);
        ratios
    }

    /// A row for each variant.
    #[must_use]
    pub fn rows(&self) -> Vec<Row> {
        let first = self
            .samples
            .first()
            .map(|(name, _)| name.as_str())
            .unwrap_or_default();
        let row = |(variant, samples): &(String, Vec<f64>)| {
            let mut sorted = samples.clone();
            sorted.sort_unstable_by(f64::total_cmp);
            let ratios = (variant != first).then(|| self.ratios(variant, first));
            let ratio = |share| ratios.as_ref().map(|sorted| quantile(sorted, share));
            Row {
                group: self.group.clone(),
                variant: variant.clone(),
                unit: self.unit.to_owned(),
                median: quantile(&sorted, 0.5),
                low: quantile(&sorted, 0.25),
                high: quantile(&sorted, 0.75),
                rounds: samples.len(),
                ratio: ratio(0.5),
                ratio_quartiles: ratio(0.25).zip(ratio(0.75)).map(<[f64; 2]>::from),
            }
        };
        self.samples.iter().map(row).collect()
    }
}

/// The quantile of sorted numbers, with `share` 0.5 for the median.
#[must_use]
pub fn quantile(sorted: &[f64], share: f64) -> f64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "there are not that many"
    )]
    let at = (sorted.len() as f64 * share) as usize;
    sorted
        .get(at.min(sorted.len().saturating_sub(1)))
        .copied()
        .unwrap_or(f64::NAN)
}

/// The median of unsorted numbers.
#[must_use]
pub fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_unstable_by(f64::total_cmp);
    quantile(&numbers, 0.5)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_is_of_figures_of_one_round() {
        let mut series = Series::new("call", "ns");
        // The machine becomes slower with each round.
        for slow in [1.0, 2.0, 30.0] {
            series.push("without", 100.0 * slow);
            series.push("with", 110.0 * slow);
        }
        let [without, with] = &series.rows()[..] else {
            panic!("two variants");
        };
        assert_eq!((without.median, without.ratio), (200.0, None));
        assert!((with.ratio.unwrap() - 1.1).abs() < 1e-9);
        assert!(with.ratio_quartiles.unwrap()[0] > 1.09);
        assert_eq!((without.ratio_quartiles, with.rounds), (None, 3));
        assert!((series.ratio("with", "without") - 1.1).abs() < 1e-9);
        assert!(series.ratio("with", "nobody").is_nan());
    }

    #[test]
    fn the_tolerance_of_a_ratio_is_of_the_differences_and_the_number_of_rounds() {
        let mut series = Series::new("call", "ns");
        for sample in 0..100 {
            series.push("without", 100.0);
            series.push("with", 100.0 + f64::from(sample % 5));
        }
        // The quartiles are 1.01 and 1.03.
        let tolerance = series.ratio_tolerance("with", "without");
        assert!((tolerance - 1.57 * 0.02 / 10.0).abs() < 1e-9);
        assert!(series.ratio_tolerance("with", "nobody").is_nan());
    }

    #[test]
    fn quartiles_enclose_the_median() {
        let mut series = Series::new("call", "ns");
        for sample in 0..100 {
            series.push("one", f64::from(sample));
        }
        let row = &series.rows()[0];
        assert_eq!((row.low, row.median, row.high), (25.0, 50.0, 75.0));
    }
}

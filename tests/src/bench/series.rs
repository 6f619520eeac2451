//! Samples of one thing in several variants, taken round by round.

use serde::{Deserialize, Serialize};

/// One thing that is measured in several variants, which take turns.
#[derive(Clone, Debug)]
pub struct Series {
    group: String,
    unit: &'static str,
    samples: Vec<(String, Vec<f64>)>,
}

/// What became of one variant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// What was measured, such as `connect, UDP, IPv4, allowed`.
    pub group: String,
    /// In which variant, such as `qfence`.
    pub variant: String,
    /// What the figures are in, such as `ns`.
    pub unit: String,
    /// The median of all rounds.
    pub median: f64,
    /// What a quarter of the rounds was below.
    pub low: f64,
    /// What a quarter of the rounds was above.
    pub high: f64,
    /// How many rounds there were.
    pub rounds: usize,
    /// To the group's first variant: the median of what it was in each round. `None` for that one itself,
    /// and where there was none.
    pub ratio: Option<f64>,
    /// What a quarter of the rounds' ratios was below, and a quarter above.
    #[serde(default)]
    pub ratio_quartiles: Option<[f64; 2]>,
}

impl Series {
    /// Without samples yet.
    #[must_use]
    pub fn new(group: impl Into<String>, unit: &'static str) -> Self {
        Self {
            group: group.into(),
            unit,
            samples: Vec::new(),
        }
    }

    /// Takes in the sample of a variant in this round. The first variant of all is what the others are
    /// compared with; each is to have one sample a round.
    pub fn push(&mut self, variant: &str, sample: f64) {
        match self.samples.iter_mut().find(|(name, _)| name == variant) {
            Some((_, samples)) => samples.push(sample),
            None => self.samples.push((variant.to_owned(), vec![sample])),
        }
    }

    /// What it is.
    #[must_use]
    pub fn group(&self) -> &str {
        &self.group
    }

    /// The samples of a variant.
    #[must_use]
    pub fn samples(&self, variant: &str) -> &[f64] {
        let of = self.samples.iter().find(|(name, _)| name == variant);
        of.map(|(_, samples)| samples.as_slice())
            .unwrap_or_default()
    }

    /// How much one variant is of another: the median of what it was in each round. Not a number if either
    /// was not measured.
    #[must_use]
    pub fn ratio(&self, variant: &str, of: &str) -> f64 {
        quantile(&self.ratios(variant, of), 0.5)
    }

    /// What one variant was of another in each round, in order.
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

/// Of numbers in order the one that such a share of them does not exceed; 0.5 for the median.
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

/// The median of numbers in any order.
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
        // The machine gets slower and slower.
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
    fn quartiles_enclose_the_median() {
        let mut series = Series::new("call", "ns");
        for sample in 0..100 {
            series.push("one", f64::from(sample));
        }
        let row = &series.rows()[0];
        assert_eq!((row.low, row.median, row.high), (25.0, 50.0, 75.0));
    }
}

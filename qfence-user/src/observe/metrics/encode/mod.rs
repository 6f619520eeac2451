//! Encodes samples as OpenMetrics text. Labels contain nothing that a process in a fence chooses: no address, port or
//! process. So the number of series depends only on the names of fences and on their rules.

mod families;

use anyhow::{Context, Result};
use prometheus_client::{
    encoding::{prometheus_text, text},
    registry::Registry,
};
use qfence_common::{Action, Traffic};

use families::{
    About, ByDirection, ByProtocol, ByRecord, ByResult, ByRule, ByVerdict, Metrics, OfFence,
    count_up, set,
};

use super::collect::{Lookups, Sample};
use crate::{policy::names::REPLIES, stored_policy::resolved_names::RESULTS};

/// The format of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// Prometheus's text format, which node_exporter reads.
    Prometheus,
}

/// The metrics of all samples, as text.
///
/// # Errors
/// Never because of a sample.
pub fn exposition(samples: &[Sample], format: Format) -> Result<String> {
    let metrics = Metrics::default();
    for sample in samples {
        metrics.take(sample);
    }
    let mut registry = Registry::with_prefix("qfence");
    metrics.register(&mut registry);
    let mut out = String::new();
    match format {
        Format::OpenMetrics => text::encode(&mut out, &registry),
        Format::Prometheus => prometheus_text::encode(&mut out, &registry),
    }
    .context("cannot write the metrics")?;
    Ok(out)
}

impl Metrics {
    fn take(&self, sample: &Sample) {
        let fence = || sample.name.clone();
        let of_fence = || OfFence { fence: fence() };
        let policy = sample.policy.as_ref();
        let is_monitored = policy.is_some_and(|policy| policy.monitor);
        let about = About {
            fence: fence(),
            state: sample.condition.name().to_lowercase(),
            profile: policy.map_or_else(String::new, |policy| policy.profile.clone()),
            mode: if is_monitored { "monitor" } else { "enforce" },
        };
        self.about.get_or_create(&about).set(1);
        set(&self.processes, of_fence(), sample.processes);
        if let Some(started) = sample.started {
            self.started.get_or_create(&of_fence()).set(started);
        }
        let lookups = sample.lookups.as_ref();
        let results = lookups.into_iter().flat_map(|lookups| lookups.results);
        for (result, count) in RESULTS.iter().zip(results) {
            let labels = ByResult {
                fence: fence(),
                result,
            };
            count_up(&self.lookups, labels, count);
        }
        if let Some(policy) = policy {
            set(&self.generation, of_fence(), policy.generation);
            set(&self.rules, of_fence(), policy.rules.len());
            set(&self.host, of_fence(), policy.host);
            set(&self.nameservers, of_fence(), policy.nameservers);
            for (number, rule, action, hits) in &policy.rules {
                let of_rule = |lookups: &Lookups| lookups.rules.get(number).copied();
                let layers = [("call", hits.calls), ("packet", hits.packets)];
                // Without a resolver there is no such layer.
                let by_name = lookups.map(|of| ("lookup", of_rule(of).unwrap_or_default()));
                for (layer, count) in layers.into_iter().chain(by_name) {
                    let labels = ByRule {
                        fence: fence(),
                        number: number.to_string(),
                        rule: rule.clone(),
                        action: word(*action),
                        layer,
                    };
                    count_up(&self.hits, labels, count);
                }
            }
        }
        for (action, class, count) in &sample.verdicts {
            let labels = ByProtocol {
                fence: fence(),
                action: word(*action),
                protocol: class.name(),
            };
            count_up(&self.verdicts, labels, *count);
        }
        let Some(counted) = &sample.counted else {
            return;
        };
        let counts = counted.counts;
        for (layer, count) in [
            ("call", counts.reply_calls),
            ("packet", counts.reply_packets),
        ] {
            let labels = ByRule {
                fence: fence(),
                number: String::new(),
                rule: REPLIES.to_owned(),
                action: word(Action::Allow),
                layer,
            };
            count_up(&self.hits, labels, count);
        }
        for (verdict, count) in [("denied", counts.refused), ("would-deny", counts.monitored)] {
            count_up(
                &self.attempts,
                ByVerdict {
                    fence: fence(),
                    verdict,
                },
                count,
            );
        }
        for (how, count) in [
            ("first", counts.first),
            ("repeated", counts.repeated),
            ("lost", counts.lost),
        ] {
            count_up(
                &self.recorded,
                ByRecord {
                    fence: fence(),
                    how,
                },
                count,
            );
        }
        count_up(&self.unparsed, of_fence(), counts.unparsed);
        count_up(&self.peers_forgotten, of_fence(), counts.peers_forgotten);
        for (way, traffic) in [
            ("sent", counted.sent),
            ("refused", counted.refused),
            ("received", counted.received),
        ] {
            let Traffic {
                connects,
                packets,
                bytes,
            } = traffic;
            let labels = || ByDirection {
                fence: fence(),
                way,
            };
            // Connections that arrive are accepted, not connected.
            if way != "received" {
                count_up(&self.connects, labels(), connects);
            }
            count_up(&self.packets, labels(), packets);
            count_up(&self.bytes, labels(), bytes);
        }
    }
}

const fn word(action: Action) -> &'static str {
    match action {
        Action::Allow => "allow",
        Action::Deny => "deny",
    }
}

#[cfg(test)]
mod tests;

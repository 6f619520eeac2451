//! Samples as OpenMetrics text. Nothing that somebody in a fence chooses, no address, port or process, is a
//! label: how many series there are is up to whoever writes rules and names fences.

use std::{
    fmt::Debug,
    hash::Hash,
    sync::atomic::{AtomicI64, AtomicU64},
};

use anyhow::{Context, Result};
use prometheus_client::{
    encoding::{EncodeLabelSet, prometheus_text, text},
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::{Registry, Unit},
};
use qfence_common::{Action, Traffic};

use super::collect::Sample;
use crate::policy::names::REPLIES;

/// The labels of a series.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfFence {
    fence: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct About {
    fence: String,
    state: String,
    profile: String,
    mode: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByVerdict {
    fence: String,
    verdict: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByRecord {
    fence: String,
    how: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByDirection {
    fence: String,
    way: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByProtocol {
    fence: String,
    action: &'static str,
    protocol: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByRule {
    fence: String,
    /// Empty for the built-in rule of replies.
    number: String,
    rule: String,
    action: &'static str,
    layer: &'static str,
}

type Counters<L> = Family<L, Counter<u64, AtomicU64>>;
type Gauges<L> = Family<L, Gauge<i64, AtomicI64>>;

/// The families of metrics.
#[derive(Default)]
struct Metrics {
    about: Gauges<About>,
    started: Family<OfFence, Gauge<f64, AtomicU64>>,
    processes: Gauges<OfFence>,
    attempts: Counters<ByVerdict>,
    recorded: Counters<ByRecord>,
    unparsed: Counters<OfFence>,
    verdicts: Counters<ByProtocol>,
    hits: Counters<ByRule>,
    connects: Counters<ByDirection>,
    packets: Counters<ByDirection>,
    bytes: Counters<ByDirection>,
    generation: Gauges<OfFence>,
    rules: Gauges<OfFence>,
    host: Gauges<OfFence>,
    nameservers: Gauges<OfFence>,
}

/// How the exposition is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// Prometheus's own text, which is what node_exporter reads.
    Prometheus,
}

/// The whole exposition.
///
/// # Errors
/// None that samples can cause.
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
    fn register(self, registry: &mut Registry) {
        // A gauge, as is "fence_info": the text format for node_exporter has no other type for it.
        let build = Gauges::<[(&str, &str); 1]>::default();
        set(&build, [("version", env!("CARGO_PKG_VERSION"))], 1);
        registry.register("build_info", "The version of qfence that says this", build);
        let mut add = |name, help, metric| add(registry, name, help, metric);
        add(
            "fence_info",
            "A fence, 1 as long as it is there",
            Any::About(self.about),
        );
        add(
            "fence_processes",
            "Processes in the fence",
            Any::Gauge(self.processes),
        );
        add(
            "policy_generation",
            "How many policies the fence has had",
            Any::Gauge(self.generation),
        );
        add(
            "policy_rules",
            "Rules of the policy in force",
            Any::Gauge(self.rules),
        );
        add(
            "host_set_members",
            "Prefixes that are the host now",
            Any::Gauge(self.host),
        );
        add(
            "nameservers",
            "Nameservers that are excepted now",
            Any::Gauge(self.nameservers),
        );
        registry.register_with_unit(
            "fence_start_time",
            "When the fence was started, since 1970",
            Unit::Seconds,
            self.started,
        );
        registry.register(
            "attempts",
            "Attempts that were denied, or would have been in monitor mode",
            self.attempts,
        );
        registry.register(
            "attempts_recorded",
            "The same attempts by what became of them: the first of a kind, repeated, or lost",
            self.recorded,
        );
        registry.register(
            "unparsed_packets",
            "Packets that were denied because they could not be understood",
            self.unparsed,
        );
        registry.register(
            "verdicts",
            "Verdicts by action and protocol, answers to peers on the host included",
            self.verdicts,
        );
        registry.register(
            "rule_hits",
            "Verdicts by the rule that gave them",
            self.hits,
        );
        registry.register("connects", "Calls of connect()", self.connects);
        registry.register(
            "packets",
            "Packets, as the network layer has them",
            self.packets,
        );
        registry.register_with_unit("traffic", "Bytes of those packets", Unit::Bytes, self.bytes);
    }

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
        if let Some(policy) = policy {
            set(&self.generation, of_fence(), policy.generation);
            set(&self.rules, of_fence(), policy.rules.len());
            set(&self.host, of_fence(), policy.host);
            set(&self.nameservers, of_fence(), policy.nameservers);
            for (number, rule, action, hits) in &policy.rules {
                for (layer, count) in [("call", hits.calls), ("packet", hits.packets)] {
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
            // What arrives is accepted, not connected.
            if way != "received" {
                count_up(&self.connects, labels(), connects);
            }
            count_up(&self.packets, labels(), packets);
            count_up(&self.bytes, labels(), bytes);
        }
    }
}

/// A family of gauges.
enum Any {
    About(Gauges<About>),
    Gauge(Gauges<OfFence>),
}

fn add(registry: &mut Registry, name: &str, help: &str, metric: Any) {
    match metric {
        Any::About(family) => registry.register(name, help, family),
        Any::Gauge(family) => registry.register(name, help, family),
    }
}

fn set<L>(family: &Gauges<L>, labels: L, value: impl TryInto<i64>)
where
    L: Clone + Debug + Eq + Hash,
{
    let value = value.try_into().unwrap_or(i64::MAX);
    family.get_or_create(&labels).set(value);
}

fn count_up<L>(family: &Counters<L>, labels: L, count: u64)
where
    L: Clone + Debug + Eq + Hash,
{
    family.get_or_create(&labels).inc_by(count);
}

const fn word(action: Action) -> &'static str {
    match action {
        Action::Allow => "allow",
        Action::Deny => "deny",
    }
}

#[cfg(test)]
mod tests {
    use qfence_common::{Hits, tally::Class};

    use super::*;
    use crate::{
        fence::registry::Condition,
        kernel::{Counts, snapshot::Snapshot},
        observe::metrics::collect::PolicySample,
    };

    fn sample() -> Sample {
        Sample {
            name: "vm1".into(),
            condition: Condition::Running,
            started: Some(1.5),
            processes: 2,
            counted: Some(Snapshot {
                counts: Counts {
                    refused: 7,
                    first: 3,
                    repeated: 4,
                    reply_packets: 5,
                    ..Counts::default()
                },
                sent: Traffic {
                    connects: 1,
                    packets: 2,
                    bytes: 300,
                },
                ..Snapshot::default()
            }),
            verdicts: vec![(Action::Deny, Class::Tcp, 7)],
            policy: Some(PolicySample {
                profile: "host".into(),
                monitor: false,
                generation: 2,
                host: 9,
                nameservers: 1,
                rules: vec![(
                    1,
                    "deny \"x\"\\".into(),
                    Action::Deny,
                    Hits {
                        calls: 7,
                        packets: 0,
                    },
                )],
            }),
        }
    }

    #[test]
    fn each_series_is_there_once_with_its_labels() {
        let text = exposition(&[sample()], Format::OpenMetrics).unwrap();
        for line in [
            "qfence_build_info{version=\"0.1.0\"} 1",
            "qfence_fence_info{fence=\"vm1\",state=\"running\",profile=\"host\",mode=\"enforce\"} 1",
            "qfence_fence_processes{fence=\"vm1\"} 2",
            "qfence_fence_start_time_seconds{fence=\"vm1\"} 1.5",
            "qfence_attempts_total{fence=\"vm1\",verdict=\"denied\"} 7",
            "qfence_attempts_total{fence=\"vm1\",verdict=\"would-deny\"} 0",
            "qfence_attempts_recorded_total{fence=\"vm1\",how=\"first\"} 3",
            "qfence_attempts_recorded_total{fence=\"vm1\",how=\"repeated\"} 4",
            "qfence_attempts_recorded_total{fence=\"vm1\",how=\"lost\"} 0",
            "qfence_verdicts_total{fence=\"vm1\",action=\"deny\",protocol=\"tcp\"} 7",
            "qfence_rule_hits_total{fence=\"vm1\",number=\"1\",rule=\"deny \\\"x\\\"\\\\\",action=\"deny\",layer=\"call\"} 7",
            "qfence_rule_hits_total{fence=\"vm1\",number=\"\",rule=\"allow replies\",action=\"allow\",layer=\"packet\"} 5",
            "qfence_connects_total{fence=\"vm1\",way=\"sent\"} 1",
            "qfence_packets_total{fence=\"vm1\",way=\"sent\"} 2",
            "qfence_traffic_bytes_total{fence=\"vm1\",way=\"sent\"} 300",
            "qfence_policy_generation{fence=\"vm1\"} 2",
            "qfence_host_set_members{fence=\"vm1\"} 9",
            "qfence_nameservers{fence=\"vm1\"} 1",
            "# EOF",
        ] {
            assert_eq!(
                text.lines().filter(|other| *other == line).count(),
                1,
                "{line} in\n{text}"
            );
        }
    }

    #[test]
    fn node_exporter_gets_types_that_it_knows() {
        let text = exposition(&[sample()], Format::Prometheus).unwrap();
        for line in [
            "# TYPE qfence_build_info gauge",
            "# TYPE qfence_attempts_total counter",
            "qfence_attempts_total{fence=\"vm1\",verdict=\"denied\"} 7",
        ] {
            assert!(text.lines().any(|other| other == line), "{line} in\n{text}");
        }
        assert!(!text.contains("# EOF"), "{text}");
    }

    #[test]
    fn without_fences_there_is_still_an_exposition() {
        let text = exposition(&[], Format::OpenMetrics).unwrap();
        assert!(
            text.contains("qfence_build_info") && text.ends_with("# EOF\n"),
            "{text}"
        );
        assert!(!text.contains("qfence_attempts_total{"), "{text}");
    }
}

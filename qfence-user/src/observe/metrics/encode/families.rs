//! The families of metrics: their names, help texts and labels.

use std::{
    fmt::Debug,
    hash::Hash,
    sync::atomic::{AtomicI64, AtomicU64},
};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::{Registry, Unit},
};

/// The labels of a series.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct OfFence {
    pub(super) fence: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct About {
    pub(super) fence: String,
    pub(super) state: String,
    pub(super) profile: String,
    pub(super) mode: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ByVerdict {
    pub(super) fence: String,
    pub(super) verdict: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ByResult {
    pub(super) fence: String,
    pub(super) result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ByRecord {
    pub(super) fence: String,
    pub(super) how: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ByDirection {
    pub(super) fence: String,
    pub(super) way: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ByProtocol {
    pub(super) fence: String,
    pub(super) action: &'static str,
    pub(super) protocol: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ByRule {
    pub(super) fence: String,
    /// Empty for the reply exception, which has no number.
    pub(super) number: String,
    pub(super) rule: String,
    pub(super) action: &'static str,
    pub(super) layer: &'static str,
}

pub(super) type Counters<L> = Family<L, Counter<u64, AtomicU64>>;
pub(super) type Gauges<L> = Family<L, Gauge<i64, AtomicI64>>;

/// The families of metrics.
#[derive(Default)]
pub(super) struct Metrics {
    pub(super) about: Gauges<About>,
    pub(super) started: Family<OfFence, Gauge<f64, AtomicU64>>,
    pub(super) processes: Gauges<OfFence>,
    pub(super) attempts: Counters<ByVerdict>,
    pub(super) recorded: Counters<ByRecord>,
    pub(super) unparsed: Counters<OfFence>,
    pub(super) peers_forgotten: Counters<OfFence>,
    pub(super) verdicts: Counters<ByProtocol>,
    pub(super) hits: Counters<ByRule>,
    pub(super) connects: Counters<ByDirection>,
    pub(super) packets: Counters<ByDirection>,
    pub(super) bytes: Counters<ByDirection>,
    pub(super) lookups: Counters<ByResult>,
    pub(super) generation: Gauges<OfFence>,
    pub(super) rules: Gauges<OfFence>,
    pub(super) host: Gauges<OfFence>,
    pub(super) nameservers: Gauges<OfFence>,
}

impl Metrics {
    pub(super) fn register(self, registry: &mut Registry) {
        // A gauge, like "fence_info", because the text format for node_exporter has no other type for it.
        let build = Gauges::<[(&str, &str); 1]>::default();
        set(&build, [("version", env!("CARGO_PKG_VERSION"))], 1);
        registry.register("build_info", "The version of qfence", build);
        let mut add = |name, help, metric| add(registry, name, help, metric);
        add(
            "fence_info",
            "1 for each fence that exists",
            Any::About(self.about),
        );
        add(
            "fence_processes",
            "Processes in the fence",
            Any::Gauge(self.processes),
        );
        add(
            "policy_generation",
            "The number of policies the fence has had",
            Any::Gauge(self.generation),
        );
        add(
            "policy_rules",
            "Rules of the policy in force",
            Any::Gauge(self.rules),
        );
        add(
            "host_set_members",
            "Prefixes in the set host",
            Any::Gauge(self.host),
        );
        add(
            "nameservers",
            "Nameservers in the DNS exception",
            Any::Gauge(self.nameservers),
        );
        registry.register_with_unit(
            "fence_start_time",
            "The start of the fence, since 1970",
            Unit::Seconds,
            self.started,
        );
        registry.register(
            "attempts",
            "Attempts that were denied, or would be denied outside of monitor mode",
            self.attempts,
        );
        registry.register(
            "attempts_recorded",
            "The same attempts by how they were recorded: the first of an attempt key, repeated, or lost",
            self.recorded,
        );
        registry.register(
            "unparsed_packets",
            "Packets that were denied because they could not be parsed",
            self.unparsed,
        );
        registry.register(
            "peers_forgotten",
            "Peers on the host that were forgotten too early, for lack of room",
            self.peers_forgotten,
        );
        registry.register(
            "verdicts",
            "Verdicts by action and protocol, including replies to peers on the host",
            self.verdicts,
        );
        registry.register(
            "lookups",
            "Look-ups of names by result, in fences with rules by name",
            self.lookups,
        );
        registry.register("rule_hits", "Verdicts by the rule that decided", self.hits);
        registry.register("connects", "Calls of connect()", self.connects);
        registry.register("packets", "Packets at the network layer", self.packets);
        registry.register_with_unit("traffic", "Bytes of those packets", Unit::Bytes, self.bytes);
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

pub(super) fn set<L>(family: &Gauges<L>, labels: L, value: impl TryInto<i64>)
where
    L: Clone + Debug + Eq + Hash,
{
    let value = value.try_into().unwrap_or(i64::MAX);
    family.get_or_create(&labels).set(value);
}

pub(super) fn count_up<L>(family: &Counters<L>, labels: L, count: u64)
where
    L: Clone + Debug + Eq + Hash,
{
    family.get_or_create(&labels).inc_by(count);
}

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
                peers_forgotten: 6,
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
        lookups: Some(Lookups {
            results: [5, 2, 4, 1, 0, 3, 0],
            rules: [(1, 9)].into(),
        }),
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
        concat!(
            "qfence_build_info{version=\"",
            env!("CARGO_PKG_VERSION"),
            "\"} 1"
        ),
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
        "qfence_peers_forgotten_total{fence=\"vm1\"} 6",
        "qfence_lookups_total{fence=\"vm1\",result=\"allowed\"} 5",
        "qfence_lookups_total{fence=\"vm1\",result=\"denied\"} 2",
        "qfence_lookups_total{fence=\"vm1\",result=\"would-deny\"} 4",
        "qfence_rule_hits_total{fence=\"vm1\",number=\"1\",rule=\"deny \\\"x\\\"\\\\\",action=\"deny\",layer=\"lookup\"} 9",
        "qfence_lookups_total{fence=\"vm1\",result=\"full\"} 3",
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

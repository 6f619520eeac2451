//! Takes any bytes as a record of the ring: they are an event or an error. An event becomes a line that matches the schema,
//! reads back as the same line, and does not control a terminal; or an error, and then the record counts it as lost.

#![no_main]
#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "libFuzzer takes a panic for a bug that it has found"
)]

use std::{cell::LazyCell, sync::Arc};

use fuzz::assert_printable;
use jsonschema::Validator;
use libfuzzer_sys::fuzz_target;
use qfence_common::{Event, Halves, NamedEvent, Repeats, unix::WORDS};
use qfence_user::{
    base::printable::{printable, shortened},
    policy::{Dns, Policy, names::Names, profile::Profile},
    record::{
        line::{Attempt, Body, Line, VERSION, at},
        process::Process,
    },
};

thread_local! {
    static SCHEMA: LazyCell<Validator> = LazyCell::new(|| {
        let schema = serde_json::from_str(include_str!("../../docs/record.schema.json"));
        jsonschema::validator_for(&schema.expect("the schema is JSON")).expect("the schema is one")
    });
    static NAMES: LazyCell<Names> = LazyCell::new(|| {
        let profile = Profile::shipped("internet-only").expect("it is shipped").into();
        let policy = Policy::new(Vec::new(), Dns::Auto, profile, None, false);
        Names::of(&policy.expect("a policy of few rules"))
    });
}

/// Encodes an event, field by field.
fn bytes_of(Event { repeats, key }: &Event) -> Vec<u8> {
    let Repeats {
        count,
        last_ns,
        origin,
    } = repeats;
    let mut bytes = Vec::new();
    let mut long = |number: u64| bytes.extend(number.to_ne_bytes());
    for number in [
        *count,
        *last_ns,
        origin.boot_ns,
        origin.cgroup,
        origin.netns,
    ] {
        long(number);
    }
    let address = |Halves { upper, lower }: Halves| [upper, lower];
    address(origin.source).into_iter().for_each(&mut long);
    bytes.extend(origin.comm.0);
    for number in [origin.tid, origin.uid, origin.source_port, origin.flags] {
        bytes.extend(number.to_ne_bytes());
    }
    for number in address(key.address) {
        bytes.extend(number.to_ne_bytes());
    }
    for number in [
        key.pid,
        key.port,
        key.protocol,
        key.hook,
        key.rule,
        key.monitored,
    ] {
        bytes.extend(number.to_ne_bytes());
    }
    bytes
}

fuzz_target!(|bytes: &[u8]| {
    let size = size_of::<Event>();
    if bytes.len() < size {
        assert_eq!(Event::from_bytes(bytes), None);
        return;
    }
    let named = bytes.get(..size_of::<NamedEvent>());
    let name = named
        .and_then(NamedEvent::from_bytes)
        .map_or([0; WORDS], |named| named.name);
    let (bytes, rest) = bytes.split_at(size);
    let event = Event::from_bytes(bytes).expect("any bytes of that size are one");
    assert_eq!(bytes_of(&event), bytes);

    // The process can also choose these facts, which do not come from the event.
    let mut process = Process::default();
    let (executable, cgroup) = rest.split_at(rest.len() / 2);
    process.executable = Some(shortened(printable(executable), 512).into());
    process.cgroup_path = Some(shortened(printable(cgroup), 1024).into());
    let Event { repeats, key } = event;
    let rule = NAMES.with(|names| names.name(key.rule));
    let Ok(attempt) = Attempt::new(&key, Some(&name), &repeats.origin, rule, &process) else {
        return;
    };
    let attempt = Box::new(attempt);
    for (body, count) in [
        (Body::Attempt(attempt.clone()), 1),
        (Body::Repeats(attempt), repeats.count.max(1)),
    ] {
        let line = Line {
            v: VERSION,
            time: at(jiff::Timestamp::UNIX_EPOCH, repeats.origin.boot_ns),
            fence: Arc::from("vm1"),
            workload: None,
            seq: 1,
            body,
            count,
            total: count,
            beside: 0,
        };
        assert_printable(&line.to_string());
        assert_printable(&line.brief());
        let json = line.to_json().expect("a line is JSON");
        assert_printable(&json);
        assert_eq!(serde_json::from_str::<Line>(&json).ok(), Some(line));
        let value = serde_json::from_str(&json).expect("JSON");
        if let Err(error) =
            SCHEMA.with(|schema| schema.validate(&value).map_err(|error| error.to_string()))
        {
            panic!("{error}: {json}");
        }
    }
});

//! Takes any bytes as what a container runtime sends to its plugin, and as the message of one of its calls. Reading in pieces
//! makes no difference, a message that is written and read again is the same, and no container whose pod or own annotations
//! ask for a fence is made without the hook.

#![no_main]

use libfuzzer_sys::fuzz_target;
use prost::Message as _;
use qfence_user::workload::{
    nri::{
        call::{Answer, Call, answered},
        choice::Choice,
        found::Collected,
        messages::{PLUGIN, Request},
        wire::{LONGEST, Message, Reader, WireError, encode},
    },
    oci::annotations::is_ours,
};

const METHODS: [&str; 6] = [
    "Configure",
    "Synchronize",
    "CreateContainer",
    "StartContainer",
    "StateChange",
    "Shutdown",
];

/// All messages up to the end, or to the first error.
fn messages(pieces: &[&[u8]]) -> (Vec<Message>, Option<WireError>) {
    let (mut reader, mut messages) = (Reader::default(), Vec::new());
    for piece in pieces {
        reader.add(piece);
        loop {
            match reader.next_message() {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => break,
                Err(error) => return (messages, Some(error)),
            }
        }
    }
    (messages, None)
}

fn decide(call: Call) {
    for is_trusting in [false, true] {
        let choice = Choice {
            program: "/usr/local/bin/qfence-user".into(),
            is_trusting,
            options: vec!["--profile=host".into()],
        };
        match call.clone() {
            Call::Synchronize(call) => {
                let (count, mut collected) = (call.containers.len(), Collected::default());
                if collected.add(call, &choice).is_ok() {
                    assert!(collected.late(&choice).len() <= count);
                }
            }
            Call::Create(pod, mut container) => {
                let mut keys = pod.annotations.keys().chain(container.annotations.keys());
                let asks = keys.any(|key| is_ours(key));
                let created = choice.create(&pod, &container);
                let Ok(created) = created else {
                    assert!(asks);
                    continue;
                };
                let written = Answer::Created(created.clone()).write();
                assert!(written.len() <= LONGEST);
                assert_eq!(answered(&written), Ok(()));
                let Some(adjust) = created.adjust else {
                    assert!(!asks || choice.is_hooked(&container));
                    continue;
                };
                assert!(asks && adjust.annotations.keys().all(|key| is_ours(key)));
                container.hooks = adjust.hooks;
                assert!(choice.is_hooked(&container));
                assert_eq!(choice.is_missing(&pod, &container), Ok(None));
            }
            Call::Start(pod, container) => drop(choice.is_missing(&pod, &container)),
            Call::Configure(_) | Call::Other => {}
        }
    }
}

fuzz_target!(|bytes: &[u8]| {
    let Some((first, rest)) = bytes.split_first() else {
        return;
    };
    let whole = messages(&[rest]);
    let at = usize::from(*first).min(rest.len());
    assert_eq!(messages(&[&rest[..at], &rest[at..]]), whole);
    for message in &whole.0 {
        let again = encode(message).map(|bytes| messages(&[&bytes]));
        assert_eq!(again, Ok((vec![message.clone()], None)));
        match Call::read(&message.data) {
            Ok(call) => decide(call),
            Err(refusal) => assert!(answered(&Answer::Refused(refusal).write()).is_err()),
        }
    }
    let request = Request {
        service: PLUGIN.into(),
        method: METHODS[usize::from(*first) % METHODS.len()].into(),
        payload: rest.to_vec(),
    };
    if let Ok(call) = Call::read(&request.encode_to_vec()) {
        decide(call);
    }
});

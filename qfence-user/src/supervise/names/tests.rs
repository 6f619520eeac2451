//! The rules change while an answer is on its way.

use std::{collections::BTreeSet, time::Duration};

use qfence_common::resolved::Grant;

use super::{tally::Tally, *};
use crate::{
    kernel::{
        resolving::bed::{Answering, Bed},
        testing::apart,
    },
    policy::{
        Policy, Sets,
        domain::DomainName,
        testing::{locked, rule},
    },
    record::lookups::{self, LookedUp},
    resolver::{Permission, Publisher as _, Rules as _},
    stored_policy::{StoredPolicy, resolved_names::StoredNames},
};

const HOUR: Duration = Duration::from_hours(1);

fn store(file: &PolicyFile, policy: &Policy, generation: u64) {
    let stored = StoredPolicy {
        policy: policy.clone(),
        sets: Sets::default(),
        netns: 0,
        resolv_conf: None,
        generation,
        devices: Vec::new(),
        workload: None,
    };
    file.prepare(&stored).unwrap().keep().unwrap();
}

fn shared(bed: &mut Bed, file: &PolicyFile) -> Shared {
    Shared {
        view: Mutex::new(Arc::new(View::read(file, false).unwrap())),
        policy_file: file.clone(),
        allows_private: false,
        resolved: Mutex::new(Addresses::open(bed.pins()).unwrap()),
        must_retain: false.into(),
        unpublished: Mutex::default(),
        askers: bed.take_askers(),
        names: ResolvedNames::default(),
        record: lookups::channel().unwrap().0,
        logs_allowed: false,
        tally: Tally::default(),
    }
}

/// What the rules grant to a name.
fn granted(shared: &Shared, name: &DomainName) -> Vec<Grant> {
    match shared.permission(name) {
        Permission::Allowed { grants, .. } => grants,
        denied @ Permission::Denied { .. } => panic!("{denied:?}"),
    }
}

fn in_force(shared: &Shared) -> BTreeSet<IpAddr> {
    let all = shared.resolved().list().unwrap().into_iter();
    all.map(|(address, _)| address).collect()
}

#[test]
fn what_the_rules_take_back_meanwhile_is_not_put_in_force() {
    apart(|scene| {
        let answering = Answering::new();
        let policy = locked(&["allow *.example.org"]);
        let mut bed = Bed::new(scene, policy.clone(), answering.resolver);
        let file = PolicyFile::new(&scene.run, "names", bed.pins());
        store(&file, &policy, 1);
        let shared = shared(&mut bed, &file);
        let [a, b]: [DomainName; 2] =
            ["a.example.org", "b.example.org"].map(|name| name.parse().unwrap());
        let [first, second, late]: [IpAddr; 3] =
            [1, 2, 3].map(|last| IpAddr::from([203, 0, 113, last]));
        let (of_a, of_b) = (granted(&shared, &a), granted(&shared, &b));
        assert_eq!((of_a.len(), &of_a), (1, &of_b));
        // The controls.
        shared.publish(&a, first, &of_a, HOUR).unwrap();
        shared.publish(&b, second, &of_b, HOUR).unwrap();
        assert_eq!(in_force(&shared), [first, second].into());
        // It is adopted when it is asked for.
        let _ = shared.view();
        assert_eq!(shared.generation(), Some(1));

        // Another process takes one of the names back, after the rules were asked about it.
        let deny = |policy: &mut Policy| policy.given.insert(0, rule("deny a.example.org"));
        store(&file, &policy.changed(deny).unwrap(), 2);
        shared.publish(&a, late, &of_a, HOUR).unwrap();
        assert_eq!(in_force(&shared), [second].into());
        shared.publish(&b, late, &of_b, HOUR).unwrap();
        assert_eq!(in_force(&shared), [second, late].into());
        // It is adopted when it is asked for.
        let _ = shared.view();
        assert_eq!(shared.generation(), Some(2));
    });
}

#[test]
fn look_ups_of_a_rule_are_not_counted_for_another_with_its_number() {
    apart(|scene| {
        let policy = locked(&["allow *.example.org"]);
        let mut bed = Bed::new(scene, policy.clone(), Answering::new().resolver);
        let file = PolicyFile::new(&scene.run, "names", bed.pins());
        store(&file, &policy, 1);
        let shared = shared(&mut bed, &file);
        let numbers: Vec<u32> = policy.rules().iter().map(|rule| rule.number).collect();
        for &rule in &numbers {
            shared.tally.take(&LookedUp {
                verdict: "allowed",
                name: "a.example.org".into(),
                kind: "A".into(),
                rule: Some(rule),
                addresses: Vec::new(),
                struck: Vec::new(),
                error: None,
            });
        }
        let counted = || {
            let mut stored = StoredNames::default();
            shared.tally.store(&mut stored);
            stored.rules.into_keys().collect::<Vec<_>>()
        };
        store(&file, &policy, 2);
        let _ = shared.view();
        assert_eq!(counted(), numbers, "the same rules");
        let other = locked(&["allow *.example.net"]);
        let remain = other
            .rules()
            .into_iter()
            .filter(|rule| policy.rules().contains(rule));
        let remain: Vec<u32> = remain.map(|rule| rule.number).collect();
        assert!(remain.len() < numbers.len());
        store(&file, &other, 3);
        let _ = shared.view();
        assert_eq!(counted(), remain);
    });
}

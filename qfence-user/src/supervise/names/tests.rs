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
    record::lookups,
    resolver::{Permission, Publisher as _, Rules as _},
    stored_policy::StoredPolicy,
};

const HOUR: Duration = Duration::from_hours(1);

fn store(file: &PolicyFile, policy: &Policy, generation: u64) {
    let stored = StoredPolicy {
        policy: policy.clone(),
        sets: Sets::default(),
        netns: 0,
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

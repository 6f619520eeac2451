//! Policies that follow one another: each decides alone, however many nodes it has.

use qfence_common::tree::FRONT;

use super::{
    super::slot::put_together,
    bed::{Bed, DROP, REDIRECT},
    build::to,
};

const ALLOWED: &str = "203.0.113.5";
const REFUSED: &str = "198.51.100.5";

/// Rules that allow and refuse the two addresses, and beside them so many others that the tree is long.
fn rules(allowed: &str, refused: &str, others: u32) -> [String; 2] {
    let others = (0..others).map(|at| format!(" 44.{}.{}.1", at >> 8, at & 0xff));
    let allow = others.fold(format!("allow {allowed}"), |all, other| all + &other);
    [allow, format!("deny {refused}")]
}

fn goes_on(bed: &mut Bed, address: &str) -> bool {
    let run = bed.judge(&to(address).udp(4000, 5000));
    assert!(run.goes_on() || [DROP, REDIRECT].contains(&run.value));
    run.goes_on()
}

#[test]
fn a_frame_is_judged_by_the_last_policy() {
    let mut bed = Bed::new();
    let changes = [
        (ALLOWED, REFUSED, 0),
        (REFUSED, ALLOWED, 0),
        (ALLOWED, REFUSED, 1000),
        (REFUSED, ALLOWED, 1000),
        (ALLOWED, REFUSED, 0),
    ];
    for (allowed, refused, others) in changes {
        let nodes = bed.publish(&rules(allowed, refused, others));
        assert!(others == 0 || nodes > FRONT, "{nodes}");
        assert!(bed.maps().has_front());
        assert!(goes_on(&mut bed, allowed), "{allowed}, {others}");
        assert!(!goes_on(&mut bed, refused), "{refused}, {others}");
        assert!(goes_on(&mut bed, "44.0.0.1"));
    }
}

#[test]
fn without_a_policy_nothing_goes_on() {
    let mut bed = Bed::new();
    assert!(goes_on(&mut bed, ALLOWED));
    bed.withdraw();
    assert!(bed.maps().has_front());
    assert!(!goes_on(&mut bed, ALLOWED));
    bed.publish(&rules(REFUSED, ALLOWED, 0));
    assert!(bed.maps().has_front());
    assert!(!goes_on(&mut bed, ALLOWED));
    assert!(goes_on(&mut bed, REFUSED));
}

#[test]
fn a_policy_that_was_sealed_lets_nothing_go_on_and_cannot_be_replaced() {
    let mut bed = Bed::new();
    bed.withdraw();
    bed.seal();
    for _ in 0..2 {
        let error = bed.try_publish(&rules(ALLOWED, REFUSED, 0)).unwrap_err();
        assert!(
            format!("{error:#}").contains("Operation not permitted"),
            "{error:#}"
        );
        assert!(!goes_on(&mut bed, ALLOWED));
    }
    // One that was published in between, and one that is in force.
    for withdraws in [true, false] {
        let mut bed = Bed::new();
        if withdraws {
            bed.withdraw();
        }
        bed.publish(&rules(ALLOWED, REFUSED, 1000));
        assert!(goes_on(&mut bed, ALLOWED));
        for _ in 0..2 {
            bed.seal();
            assert!(!goes_on(&mut bed, ALLOWED));
            assert!(bed.try_publish(&rules(ALLOWED, REFUSED, 0)).is_err());
            assert!(!goes_on(&mut bed, ALLOWED));
        }
    }
    // While it is published.
    let mut bed = Bed::new();
    let rest = bed.publish_half(&rules(ALLOWED, REFUSED, 0));
    assert!(goes_on(&mut bed, ALLOWED));
    bed.seal();
    assert!(put_together([rest]).is_err());
    assert!(!goes_on(&mut bed, ALLOWED));
}

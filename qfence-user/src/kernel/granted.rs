//! How an address of a name comes into force, and how long it stays: see [`qfence_common::resolved::Resolved`].

use std::time::Duration;

use qfence_common::resolved::{GRANTS, Grant, Resolved};

/// For how long use makes an address last while nobody resolves names.
const WITHOUT_RESOLVER: Duration = Duration::from_hours(1);

/// How much of that may pass before [`Addresses::sweep`] writes the end anew. Each write can lose the note of a use that a
/// program makes at the same moment.
const RENEWED_AFTER: Duration = Duration::from_mins(10);

/// An address that lasts no less than this before the end that is asked for is not written anew: thousands of answers from a
/// cache would cost as many writes.
const SLACK: Duration = Duration::from_secs(1);

/// An address whose end is nearer is not written anew: it is over before it is used again, or its next use moves the end.
const NEAR: Duration = Duration::from_secs(2);

/// The entry with the grants of another one that is in force, and with these. `None` if there are too many.
pub(super) fn merged(
    before: Option<Resolved>,
    grants: &[Grant],
    lasts: Duration,
    now_ns: u64,
) -> Option<Resolved> {
    let mut all = before.as_ref().map(granted).unwrap_or_default();
    for grant in grants {
        if *grant != Grant::NONE && !all.contains(grant) {
            all.push(*grant);
        }
    }
    let expires_ns = after(now_ns, lasts);
    let until_ns = after(now_ns, lasts.max(WITHOUT_RESOLVER));
    Some(Resolved {
        expires_ns: before.map_or(expires_ns, |before| before.expires_ns.max(expires_ns)),
        until_ns: before.map_or(until_ns, |before| before.until_ns.max(until_ns)),
        grants: packed(&all)?,
    })
}

/// Whether an entry in force needs no write to become another one.
pub(super) fn covers(before: &Resolved, entry: &Resolved, now_ns: u64) -> bool {
    let is_late = after(before.expires_ns, SLACK) >= entry.expires_ns;
    before.grants == entry.grants && is_late && !is_due(before, now_ns)
}

/// Whether the end that use does not move is to be moved.
fn is_due(entry: &Resolved, now_ns: u64) -> bool {
    entry.until_ns < after(now_ns, WITHOUT_RESOLVER.saturating_sub(RENEWED_AFTER))
}

/// The entry with an end that is moved, if it is worth a write.
pub(super) fn renewed(entry: Resolved, now_ns: u64) -> Option<Resolved> {
    let until_ns = after(now_ns, WITHOUT_RESOLVER);
    let is_near = entry.expires_ns < after(now_ns, NEAR);
    (is_due(&entry, now_ns) && !is_near).then_some(Resolved { until_ns, ..entry })
}

fn after(now_ns: u64, time: Duration) -> u64 {
    now_ns.saturating_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX))
}

/// The grants of an entry.
pub(super) fn granted(entry: &Resolved) -> Vec<Grant> {
    let grants = entry.grants.into_iter();
    grants.take_while(|grant| *grant != Grant::NONE).collect()
}

/// Grants without gaps. `None` if there are too many.
pub(super) fn packed(grants: &[Grant]) -> Option<[Grant; GRANTS]> {
    let mut all = [Grant::NONE; GRANTS];
    all.get_mut(..grants.len())?.copy_from_slice(grants);
    Some(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_000_000_000_000;
    const MINUTE: Duration = Duration::from_mins(1);

    fn grant(rule: u32) -> Grant {
        Grant::new(rule, 0).unwrap()
    }

    #[test]
    fn grants_are_added_to_those_in_force_and_nothing_is_shortened() {
        let one = merged(None, &[grant(1)], MINUTE, NOW).unwrap();
        assert_eq!(granted(&one), [grant(1)]);
        assert_eq!(one.expires_ns, after(NOW, MINUTE));
        assert_eq!(one.until_ns, after(NOW, WITHOUT_RESOLVER));
        let two = merged(Some(one), &[grant(2), grant(1)], Duration::ZERO, NOW).unwrap();
        assert_eq!(granted(&two), [grant(1), grant(2)]);
        assert_eq!(two.expires_ns, one.expires_ns);
        let longer = merged(Some(two), &[grant(1)], 2 * WITHOUT_RESOLVER, NOW).unwrap();
        assert_eq!(longer.expires_ns, after(NOW, 2 * WITHOUT_RESOLVER));
        assert_eq!(longer.until_ns, longer.expires_ns);
    }

    #[test]
    fn an_address_has_no_more_grants_than_fit() {
        let rules = u32::try_from(GRANTS).unwrap();
        let most: Vec<_> = (0..rules).map(grant).collect();
        let full = merged(None, &most, MINUTE, NOW).unwrap();
        assert_eq!(granted(&full), most);
        assert!(merged(Some(full), &most, MINUTE, NOW).is_some());
        assert_eq!(merged(Some(full), &[grant(rules)], MINUTE, NOW), None);
    }

    #[test]
    fn an_end_is_moved_seldom_and_not_when_it_is_near() {
        let entry = merged(None, &[grant(1)], MINUTE, NOW).unwrap();
        assert_eq!(renewed(entry, NOW), None);
        let later = after(NOW, RENEWED_AFTER) + 1;
        let used = Resolved {
            expires_ns: after(later, MINUTE),
            ..entry
        };
        let until_ns = after(later, WITHOUT_RESOLVER);
        assert_eq!(renewed(used, later), Some(Resolved { until_ns, ..used }));
        let near = Resolved {
            expires_ns: later + 1,
            ..entry
        };
        assert_eq!(renewed(near, later), None);
    }

    #[test]
    fn what_is_in_force_already_is_not_written_again() {
        let put = |before, rule, lasts, now| merged(before, &[grant(rule)], lasts, now).unwrap();
        let entry = put(None, 1, MINUTE, NOW);
        let is_covered = |rule, lasts, later| {
            let now = after(NOW, later);
            covers(&entry, &put(Some(entry), rule, lasts, now), now)
        };
        let second = Duration::from_secs(1);
        assert!(is_covered(1, MINUTE, Duration::ZERO));
        assert!(is_covered(1, MINUTE, SLACK));
        assert!(is_covered(1, MINUTE - 30 * second, 30 * second));
        assert!(!is_covered(1, MINUTE, SLACK + second));
        assert!(!is_covered(2, MINUTE, Duration::ZERO), "another grant");
        let used = Resolved {
            expires_ns: u64::MAX,
            ..entry
        };
        let later = after(NOW, RENEWED_AFTER) + 1;
        let again = put(Some(used), 1, MINUTE, later);
        assert!(!covers(&used, &again, later), "its last end is too near");
    }
}

//! The sizes of maps: pure arithmetic. Maps take most of the kernel memory of a fence, and most fences use only a
//! small part of each.

use qfence_common::{abi, verdict::MAX_RULES};

use super::Settings;
use crate::confinement::Enforced;

/// The least number of rules with counters per CPU.
const FEW_RULES: u32 = 128;
/// How many further rules fit after those of the first policy.
const MORE_RULES: u32 = 64;

/// The number of rules with counters per CPU, if the first policy's rule numbers are below `rules`. Counters of
/// further rules are made when needed.
pub(super) fn hits(rules: u32) -> u32 {
    if rules >= MAX_RULES {
        return MAX_RULES;
    }
    (rules + MORE_RULES)
        .next_power_of_two()
        .clamp(FEW_RULES, MAX_RULES)
}

/// The capacity of the next map of attempt keys, given the number of known keys. As many again fit before keys go to
/// the trie.
pub(super) fn keys(known: usize) -> u32 {
    u32::try_from(known.saturating_mul(2))
        .ok()
        .and_then(u32::checked_next_power_of_two)
        .unwrap_or(abi::KEYS)
        .clamp(abi::FEW_KEYS, abi::KEYS)
}

/// The capacity of a map for network devices that has room for `most` entries in a fence with devices.
pub(super) const fn of_devices(settings: Settings, most: u32) -> u32 {
    if settings.devices { most } else { 1 }
}

/// The capacity of a map for names that has room for `most` entries in a fence with a resolver.
pub(super) fn of_resolver(enforced: &Enforced, most: u32) -> u32 {
    if enforced.resolver.is_some() { most } else { 1 }
}

/// The capacity of the map of devices that may be opened, which does not change while the fence exists.
pub(super) fn of_allowed(enforced: &Enforced) -> u32 {
    let allowed = enforced.devices.as_ref();
    let count = allowed.map_or(0, |allowed| allowed.iter().len());
    u32::try_from(count).map_or(abi::DEVICES, |count| count.clamp(1, abi::DEVICES))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hits_have_room_for_the_first_rules_and_some_more() {
        let sizes = [0, 3, 64, 65, 192, 193, 449, 1023, 1024, u32::MAX].map(hits);
        assert_eq!(
            sizes,
            [128, 128, 128, 256, 256, 512, 1024, 1024, 1024, 1024]
        );
        assert!((0..=MAX_RULES).all(|rules| hits(rules) >= rules));
    }

    #[test]
    fn kinds_have_room_for_as_many_again_and_go_back() {
        let sizes = [0, 1, 512, 513, 1024, 1025, 2048, 4096, usize::MAX].map(keys);
        assert_eq!(
            sizes,
            [1024, 1024, 1024, 2048, 2048, 4096, 4096, 4096, 4096]
        );
    }
}

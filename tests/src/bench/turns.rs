//! The order in which the variants take turns.

/// The order of `count` variants in a round. Over twice as many rounds as there are variants, each variant follows each
/// other one equally often (a balanced Latin square, by Williams), so that aftereffects of a variant affect all others
/// equally.
pub fn turns(round: usize, count: usize) -> impl Iterator<Item = usize> {
    (0..count).map(move |turn| {
        let is_reversed = (round / count) % 2 == 1;
        let turn = if is_reversed { count - 1 - turn } else { turn };
        // 0, 1, -1, 2, -2, …: each difference of successive steps occurs once.
        let step = if turn % 2 == 1 {
            turn.div_ceil(2)
        } else {
            count - turn / 2
        };
        (round + step) % count
    })
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    #[test]
    fn all_have_a_turn_in_each_round() {
        for count in 1..=8 {
            for round in 0..2 * count {
                let all: BTreeSet<_> = turns(round, count).collect();
                assert_eq!(all, (0..count).collect(), "{round} of {count}");
            }
        }
    }

    #[test]
    fn each_comes_after_each_other_equally_often() {
        for count in 2..=8 {
            let mut pairs = BTreeMap::new();
            for round in 0..2 * count {
                let order: Vec<_> = turns(round, count).collect();
                for pair in order.windows(2) {
                    *pairs.entry((pair[0], pair[1])).or_insert(0) += 1;
                }
            }
            assert_eq!(pairs.len(), count * (count - 1));
            assert!(pairs.values().all(|times| *times == 2), "{pairs:?}");
        }
    }
}

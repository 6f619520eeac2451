use super::*;

fn set(prefixes: &[&str]) -> Translators {
    let parsed = prefixes.iter().map(|prefix| prefix.parse());
    parsed.collect::<Result<_, _>>().unwrap()
}

#[test]
fn what_was_revealed_stays_until_each_nameserver_has_answered() {
    let (old, new) = (set(&["2001:db8:64::/96"]), set(&["2001:db8:65::/96"]));
    let both = set(&["2001:db8:64::/96", "2001:db8:65::/96"]);
    for (translators, is_complete, expected) in [
        (&new, true, &new),
        (&new, false, &both),
        (&set(&[]), false, &old),
        (&set(&[]), true, &set(&[])),
    ] {
        let mut known = old.clone();
        let translators = translators.clone();
        let revealed = Revealed {
            translators,
            is_complete,
        };
        revealed.put_in_place_of(&mut known);
        assert_eq!(&known, expected);
    }
}

#[test]
fn a_nameserver_that_always_reveals_others_fills_no_memory() {
    let mut known = Translators::new();
    for number in 0..10 * MOST {
        let revealed = Revealed {
            translators: set(&[&format!("2001:db8:{number:x}::/96")]),
            is_complete: false,
        };
        revealed.put_in_place_of(&mut known);
        assert!(known.len() <= MOST);
    }
}

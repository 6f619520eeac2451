//! Takes any text as a rule: it is one, or an error. A rule is parsed again from its display as the same rule.

#![no_main]

use fuzz::assert_printable;
use libfuzzer_sys::fuzz_target;
use qfence_user::policy::{grammar, rule::Match};

fuzz_target!(|text: &str| {
    match text.parse::<Match>() {
        Ok(of) => {
            assert_eq!(of.to_string().parse(), Ok(of.clone()));
            assert!(!of.in_effect().is_empty());
            let prefixes = of.destination.prefixes();
            let fewest = if of.pattern().is_some() { 0 } else { 1 };
            assert!(prefixes.is_none_or(|prefixes| (fewest..=96).contains(&prefixes.len())));
        }
        Err(error) => assert_printable(&error.to_string()),
    }
    if let Err(error) = grammar::destination(text) {
        assert_printable(&error.to_string());
    }
});

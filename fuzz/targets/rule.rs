//! Any text is a rule or an error, and a rule means what it displays.

#![no_main]

use libfuzzer_sys::fuzz_target;
use qfence_user::policy::{grammar, rule::Match};

fuzz_target!(|text: &str| {
    match text.parse::<Match>() {
        Ok(of) => {
            assert_eq!(of.to_string().parse(), Ok(of.clone()));
            assert!(!of.in_effect().is_empty());
            let prefixes = of.destination.prefixes();
            assert!(prefixes.is_none_or(|prefixes| (1..=96).contains(&prefixes.len())));
        }
        Err(error) => assert!(is_one_line(&error.to_string())),
    }
    if let Err(error) = grammar::destination(text) {
        assert!(is_one_line(&error.to_string()));
    }
});

/// It goes to terminals and logs.
fn is_one_line(message: &str) -> bool {
    !message.contains(char::is_control)
}

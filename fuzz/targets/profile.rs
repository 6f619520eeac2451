//! Takes any text as a profile: it is one, or an error with a line number. A rule of a profile is parsed again from its
//! display as the same rule.

#![no_main]
#![expect(
    clippy::panic,
    reason = "libFuzzer takes a panic for a bug that it has found"
)]

use libfuzzer_sys::fuzz_target;
use qfence_user::policy::{
    profile::{Profile, ProfileError},
    rule::{Match, Source},
};

fuzz_target!(|text: &str| {
    let lines = text.split('\n').count();
    match Profile::parse("fuzz", None, text) {
        Ok(profile) => {
            assert!((1..=lines).contains(&profile.default_line));
            for rule in &profile.rules {
                assert!(!rule.matches.is_empty());
                for of in &rule.matches {
                    assert_eq!(of.to_string().parse::<Match>().as_ref(), Ok(of));
                }
                assert!(matches!(rule.source, Source::Profile { line, .. } if line <= lines));
            }
        }
        Err(ProfileError::Text(error)) => {
            assert!((1..=lines).contains(&error.line));
            assert_eq!(error.to_string().lines().count(), 4);
        }
        Err(error) => panic!("{error}"),
    }
});

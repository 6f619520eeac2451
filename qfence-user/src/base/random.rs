//! Unpredictable numbers.

use std::hash::{BuildHasher as _, RandomState};

/// A new number for each call. The standard library seeds it with the kernel's randomness.
#[must_use]
pub fn number() -> u64 {
    RandomState::new().hash_one(std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_another() {
        assert_ne!(number(), number());
    }
}

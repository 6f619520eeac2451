//! The version by which this program knows the fences that it can use: [`qfence_common::abi::VERSION`].

use std::hint::black_box;

use qfence_common::abi;

/// The number beside a mark by which it is found in the file of the program.
#[repr(C)]
struct Marked {
    mark: [u8; 16],
    number: [u8; 4],
}

/// Looked at when the program runs. So a copy of the program in which the number is another one behaves as a program of
/// that version does: the tests of versions have a second program without building one.
#[used]
static THIS: Marked = Marked {
    mark: *b"qfence ABI is -\n",
    number: abi::VERSION.to_le_bytes(),
};

/// The version of this program.
#[must_use]
pub fn abi() -> u32 {
    // Or the compiler takes the number for one that nothing can change.
    let Marked { number, .. } = black_box(&THIS);
    u32::from_le_bytes(*number)
}

/// What was read is of another version.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{of} is of another version of qfence (ABI {found}, and this is ABI {})",
    abi()
)]
pub struct OtherVersion {
    /// What was read.
    pub of: String,
    /// Its version.
    pub found: u32,
}

/// Compares the version of something that was read with this program's.
///
/// # Errors
/// If it is another one.
pub fn check(found: u32, of: impl Into<String>) -> Result<(), OtherVersion> {
    if found == abi() {
        return Ok(());
    }
    let of = of.into();
    Err(OtherVersion { of, found })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_the_one_that_both_sides_are_built_with() {
        assert_eq!(abi(), abi::VERSION);
        assert_eq!(check(abi(), "x"), Ok(()));
        let other = check(abi() + 1, "x").unwrap_err().to_string();
        assert!(
            other.starts_with("x is of another version of qfence (ABI 2, "),
            "{other}"
        );
    }
}

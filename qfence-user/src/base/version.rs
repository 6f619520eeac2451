//! The commit and the ABI version of this program, [`qfence_common::abi::VERSION`], and the check of fences against it.

use std::hint::black_box;

use qfence_common::abi;

/// The commit that this program was built from, with `+` if the tree had changes; `unknown` in a build that is not for
/// installation.
pub const COMMIT: &str = env!("QFENCE_COMMIT");

/// The number, and before it a mark that makes it possible to find it in the executable file.
#[repr(C)]
struct Marked {
    mark: [u8; 16],
    number: [u8; 4],
}

/// Read at run time. A copy of the executable in which this number is changed acts like another version, so tests of
/// versions need no second build.
#[used]
static THIS: Marked = Marked {
    mark: *b"qfence ABI is -\n",
    number: abi::VERSION.to_le_bytes(),
};

/// The ABI version of this program.
#[must_use]
pub fn abi() -> u32 {
    // Without this the compiler would inline the number.
    let Marked { number, .. } = black_box(&THIS);
    u32::from_le_bytes(*number)
}

/// Data of another version was read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{of} is of another version of qfence (ABI {found}, and this is ABI {})",
    abi()
)]
pub struct OtherVersion {
    /// The name of the data.
    pub of: String,
    /// Its version.
    pub found: u32,
}

/// Compares the version of data with this program's.
///
/// # Errors
/// If they differ.
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
        let next = abi() + 1;
        let other = check(next, "x").unwrap_err().to_string();
        let expected = format!("x is of another version of qfence (ABI {next}, ");
        assert!(other.starts_with(&expected), "{other}");
    }
}

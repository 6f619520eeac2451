//! Checks that several targets share.

use libfuzzer_sys as _;
use qfence_user::base::printable::printable;

/// Checks that a text for a terminal or a log is one line, without characters that control or deceive a terminal.
///
/// # Panics
/// If it has such a character.
pub fn assert_printable(text: &str) {
    assert_eq!(printable(text.as_bytes()), text);
}

//! What several targets check.

use libfuzzer_sys as _;
use qfence_user::base::printable::printable;

/// Makes sure that a text for a terminal or a log is one line, and that nothing in it drives or deceives a terminal.
///
/// # Panics
/// If it is not.
pub fn assert_printable(text: &str) {
    assert_eq!(printable(text.as_bytes()), text);
}

//! The text of `--version`: the version, the commit, the ABI, and the eBPF objects in the program.

use std::fmt::Write as _;

use crate::{base::version, kernel::digest};

/// The text for a program of this name.
#[must_use]
pub(super) fn text(program: &str) -> String {
    let mut text = format!("{program} {}\n", env!("CARGO_PKG_VERSION"));
    let (commit, abi) = (version::COMMIT, version::abi());
    // Writing to a string does not fail.
    let _ = write!(text, "commit: {commit}\nABI: {abi}");
    for (file, digest) in digest::objects() {
        let _ = write!(text, "\n{file}: sha256 {digest}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_names_the_version_first_and_each_object() {
        let text = text("qfence-user");
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], concat!("qfence-user ", env!("CARGO_PKG_VERSION")));
        assert_eq!(lines[1], format!("commit: {}", version::COMMIT));
        assert_eq!(lines[2], format!("ABI: {}", version::abi()));
        assert_eq!(lines.len(), 6);
        for (file, digest) in digest::objects() {
            assert!(text.contains(&format!("{file}: sha256 {digest}")));
        }
    }
}

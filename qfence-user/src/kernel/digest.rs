//! The SHA-256 of the eBPF objects in this program.

use sha2::{Digest as _, Sha256};

use super::{LOCAL_IN_OBJECT, OBJECT, TRACING_OBJECT};

/// The file names of the objects in `target/ebpf`, and the SHA-256 of each as it is in this program.
#[must_use]
pub fn objects() -> [(&'static str, String); 3] {
    [
        ("qfence.o", OBJECT),
        ("qfence-trace.o", TRACING_OBJECT),
        ("qfence-local-in.o", LOCAL_IN_OBJECT),
    ]
    .map(|(file, object)| (file, of(object)))
}

/// The SHA-256 of bytes, in hexadecimal digits.
#[must_use]
pub fn of(bytes: &[u8]) -> String {
    format!("{:x}", Sha256::digest(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_that_of_sha256sum() {
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(of(b""), empty);
        let objects = objects();
        assert_eq!(objects[0].1, of(OBJECT));
        assert_ne!(objects[0].1, objects[1].1);
        assert_ne!(objects[0].1, objects[2].1);
    }
}

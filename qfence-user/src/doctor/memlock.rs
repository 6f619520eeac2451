//! The limit on locked memory, against which the kernel counts maps before Linux 5.11.

use super::finding::Finding;
use crate::base::release::Version;

const NAME: &str = "memlock";

/// Maps count against the memory controller from here on (commit 755e5d55367a and those around it).
const NOT_COUNTED: Version = Version(5, 11);

/// Judges the hard limit, in bytes, after qfence has tried to lift it.
#[must_use]
pub fn judge(version: Option<Version>, lifted: bool, hard: u64) -> Finding {
    match version {
        Some(version) if version >= NOT_COUNTED => {
            Finding::ok(NAME, "maps do not count as locked memory on this kernel")
        }
        _ if lifted => Finding::ok(NAME, "the limit on locked memory can be lifted"),
        _ => Finding::degraded(
            NAME,
            format!("maps may count as locked memory, of which {hard} bytes are allowed"),
            "raise it (`ulimit -l unlimited`, LimitMEMLOCK=infinity), or keep CAP_SYS_RESOURCE, if \
             a program or map is refused",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::finding::State, *};

    #[test]
    fn it_matters_on_old_kernels_that_do_not_let_it_be_lifted() {
        assert_eq!(judge(Some(Version(5, 11)), false, 0).state, State::Ok);
        assert_eq!(judge(Some(Version(5, 10)), true, 0).state, State::Ok);
        assert_eq!(judge(Some(Version(5, 10)), false, 1).state, State::Degraded);
        assert_eq!(judge(None, false, 1).state, State::Degraded);
    }
}

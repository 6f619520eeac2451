//! The limit on locked memory. Before Linux 5.11, the kernel counts maps against it.

use super::finding::Finding;
use crate::base::release::Version;

const NAME: &str = "memlock";

/// From this version on, maps count against the memory controller instead (commit 755e5d55367a and related ones).
const NOT_COUNTED: Version = Version(5, 11);

/// Judges the hard limit, in bytes. qfence has tried to lift it before.
#[must_use]
pub fn judge(version: Option<Version>, lifted: bool, hard: u64) -> Finding {
    match version {
        Some(version) if version >= NOT_COUNTED => {
            Finding::ok(NAME, "maps do not count as locked memory on this kernel")
        }
        _ if lifted => Finding::ok(NAME, "the limit on locked memory can be lifted"),
        _ => Finding::degraded(
            NAME,
            format!("maps may count as locked memory, which is limited to {hard} bytes"),
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

//! Rules by name: fences with such rules have a resolver, which the programs know by the cookie of its network namespace.

use super::finding::Finding;
use crate::kernel::within::cookie_of;

const NAME: &str = "rules by name";

/// Asks the kernel for the cookie of this network namespace.
#[must_use]
pub fn examine() -> Finding {
    let cookie = cookie_of(None).map(drop);
    judge(cookie.map_err(|error| format!("{error:#}")))
}

fn judge(cookie: Result<(), String>) -> Finding {
    match cookie {
        Ok(()) => Finding::ok(NAME, "the kernel tells network namespaces apart"),
        Err(error) => Finding::degraded(
            NAME,
            format!(
                "fences with them do not start: the kernel does not tell network namespaces apart: {error}"
            ),
            "use Linux 5.14 or newer if rules by name are needed",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::finding::State, *};

    #[test]
    fn other_fences_need_nothing_of_it() {
        assert_eq!(judge(Ok(())).state, State::Ok);
        let finding = judge(Err("ENOPROTOOPT".into()));
        assert_eq!(finding.state, State::Degraded);
        assert!(finding.found.ends_with(": ENOPROTOOPT"), "{finding:?}");
    }
}

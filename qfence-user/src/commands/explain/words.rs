//! Splits the words of `explain` into the fence and the destinations.

use anyhow::{Result, bail, ensure};

use crate::{base::name::check_name, cli::Explain, policy::grammar};

/// The fence, if one is named, and the destinations. A word that can be parsed as a destination is a destination. But the
/// first word must not be the name of a fence as well: the answer would be by another policy than the fence's.
///
/// # Errors
/// If the first word has two meanings or none, or if no destination follows a fence.
pub(super) fn split(
    options: &Explain,
    is_fence: impl Fn(&str) -> bool,
) -> Result<(Option<&str>, &[String])> {
    let words = &options.words;
    if let Some(name) = &options.fence {
        return Ok((Some(name), words));
    }
    let Some((first, rest)) = words.split_first() else {
        return Ok((None, words));
    };
    let has_policy = !options.policy.is_empty() || options.dns.is_some();
    let Err(error) = grammar::destination(first) else {
        // A fence cannot be asked with the options of a policy.
        let of_fence = match has_policy {
            true => String::new(),
            false => format!("give --fence {first} before the destinations to ask this fence, or "),
        };
        ensure!(
            !is_fence(first),
            "{first:?} is a destination, and there is a fence of this name: {of_fence}put another destination first to \
             ask without a fence"
        );
        return Ok((None, words));
    };
    if check_name(first).is_err() {
        return Ok((None, words));
    }
    ensure!(
        !has_policy,
        "{first:?} is not a destination, but can be the name of a fence. A fence has its own policy, which is not \
         combined with options: remove the options, or the name"
    );
    if rest.is_empty() {
        // The word may have been meant as a destination.
        bail!(
            "give destinations after the fence {first:?}; it is not a destination itself: {error}"
        );
    }
    Ok((Some(first), rest))
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::{Cli, Verb};

    /// The fence and the number of destinations, or the error, if there are fences `vm1` and `web.prod`.
    fn parsed(line: &str) -> Result<(Option<String>, usize), String> {
        let words = ["qfence-user", "explain"]
            .into_iter()
            .chain(line.split(' '));
        let Verb::Explain(options) = Cli::try_parse_from(words).unwrap().verb else {
            panic!("another command");
        };
        let is_fence = |name: &str| ["vm1", "web.prod"].contains(&name);
        split(&options, is_fence)
            .map(|(fence, rest)| (fence.map(str::to_owned), rest.len()))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn a_fence_whose_name_is_a_destination_is_named_by_the_option() {
        for (line, advice) in [
            (
                "web.prod tcp:127.0.0.1:22",
                ": give --fence web.prod before the destinations to ask this fence, or put another destination first",
            ),
            ("web.prod", ": give --fence web.prod before"),
            (
                "--default deny web.prod 127.0.0.1",
                ": put another destination first",
            ),
        ] {
            let error = parsed(line).unwrap_err();
            assert!(
                error.starts_with("\"web.prod\" is a destination, and"),
                "{error}"
            );
            assert!(error.contains(advice), "{error}");
        }
        let web = Some("web.prod".to_owned());
        assert_eq!(parsed("--fence web.prod tcp:127.0.0.1:22"), Ok((web, 1)));
        assert_eq!(parsed("tcp:127.0.0.1:22 web.prod"), Ok((None, 2)));
        assert_eq!(parsed("--default deny 127.0.0.1 web.prod"), Ok((None, 2)));
    }

    #[test]
    fn other_first_words_have_one_meaning() {
        assert_eq!(parsed("vm1 127.0.0.1"), Ok((Some("vm1".to_owned()), 1)));
        // The fence may not exist: that is reported later.
        assert_eq!(parsed("vm2 127.0.0.1"), Ok((Some("vm2".to_owned()), 1)));
        assert_eq!(parsed("web.test 127.0.0.1"), Ok((None, 2)));
        assert!(parsed("vm1").unwrap_err().contains("give destinations"));
        assert!(
            parsed("--default deny vm1 127.0.0.1")
                .unwrap_err()
                .contains("options")
        );
    }
}

//! The administrator's file of further addresses of the host: a public address behind NAT, a virtual address, the machine
//! that this one is a guest of.
//!
//! ```toml
//! host = ["203.0.113.7", "10.0.0.0/24", "gateway"]   # count as the host, for all fences
//! nat64 = ["64:ff9b:1::/96"]                          # prefixes of NAT64 translators; no nameserver is asked then
//! ```

use std::{collections::BTreeSet, io, path::Path};

use qfence_common::Action;
use serde::Deserialize;
use toml::Spanned;

use super::{
    Misplaced, ProfileError, file,
    position::Fault,
    toml::{explain, one},
};
use crate::policy::{
    Prefix, nat64,
    rule::{Destination, Match},
    set::SetName,
};

/// The content of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostFile {
    /// Prefixes that count as the host.
    pub host: BTreeSet<Prefix>,
    /// Whether the gateways of the default routes count as the host.
    pub gateway: bool,
    /// The prefixes of NAT64 translators; `None` to ask the nameservers for them.
    pub nat64: Option<BTreeSet<Prefix>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    #[serde(default)]
    host: Vec<Spanned<String>>,
    nat64: Option<Vec<Spanned<String>>>,
}

impl HostFile {
    /// Reads the file at `path`. A missing one is empty.
    ///
    /// # Errors
    /// If it cannot be read, another user could change it, or any part of it is invalid.
    pub fn read(path: &Path) -> Result<Self, ProfileError> {
        const ROOT: u32 = 0;
        match file::read(path, &[ROOT]) {
            Ok(text) => Self::parse(path, &text),
            Err(ProfileError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                Ok(Self::default())
            }
            Err(error) => Err(error),
        }
    }

    /// Parses the text of the file.
    ///
    /// # Errors
    /// If any part of it is invalid. Nothing is skipped.
    pub fn parse(path: &Path, text: &str) -> Result<Self, ProfileError> {
        parse(text).map_err(|fault| {
            let file = path.display().to_string();
            ProfileError::Text(Box::new(Misplaced::new(file, text, fault)))
        })
    }
}

fn parse(text: &str) -> Result<HostFile, Fault> {
    let raw: Raw = toml::from_str(text).map_err(|error| Fault {
        span: error.span().unwrap_or_default(),
        message: explain(error.message()),
    })?;
    let mut found = HostFile::default();
    for text in raw.host {
        match whole(&text)? {
            Some(Destination::Set(SetName::Gateway)) => found.gateway = true,
            Some(Destination::Prefix(prefix)) => {
                found.host.insert(prefix);
            }
            _ => {
                return Err(Fault {
                    span: text.span(),
                    message: "write an address, a prefix, or gateway, without protocol and ports"
                        .into(),
                });
            }
        }
    }
    if let Some(texts) = raw.nat64 {
        let mut prefixes = BTreeSet::new();
        for text in texts {
            match whole(&text)? {
                Some(Destination::Prefix(prefix)) if nat64::is_possible(prefix) => {
                    prefixes.insert(prefix);
                }
                _ => {
                    return Err(Fault {
                        span: text.span(),
                        message:
                            "a NAT64 translator has an IPv6 prefix of 32, 40, 48, 56, 64 or 96 bits"
                                .into(),
                    });
                }
            }
        }
        found.nat64 = Some(prefixes);
    }
    Ok(found)
}

/// The destination of a text that has neither protocol nor ports.
fn whole(text: &Spanned<String>) -> Result<Option<Destination>, Fault> {
    let of = one(Action::Allow, text)?;
    Ok((of == Match::all_of(of.destination.clone())).then_some(of.destination))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<HostFile, String> {
        HostFile::parse(Path::new("/etc/qfence/host.toml"), text).map_err(|error| error.to_string())
    }

    #[test]
    fn addresses_prefixes_and_the_gateway_are_read() {
        let found = parse(
            "host = [\"203.0.113.7\", \"10.0.0.0/24\", \"2001:db8::7\", \"gateway\"]\n\
             nat64 = [\"64:ff9b:1::/96\"]\n",
        )
        .unwrap();
        assert_eq!((found.host.len(), found.gateway), (3, true));
        assert_eq!(found.nat64.map(|prefixes| prefixes.len()), Some(1));
        assert_eq!(parse("# nothing yet\n"), Ok(HostFile::default()));
        let off = parse("nat64 = []").unwrap();
        assert_eq!(off.nat64, Some(BTreeSet::new()));
    }

    #[test]
    fn each_error_has_its_place_and_what_to_write() {
        for (text, place, words) in [
            (
                "host = [\"example.org\"]",
                ":1:9: ",
                "write an address, a prefix, or gateway",
            ),
            (
                "host = [\"10.0.0.1\",\n \"tcp:10.0.0.1:80\"]",
                ":2:2: ",
                "without protocol and ports",
            ),
            (
                "host = [\"lan\"]",
                ":1:9: ",
                "write an address, a prefix, or gateway",
            ),
            (
                "nat64 = [\"64:ff9b::/95\"]",
                ":1:10: ",
                "32, 40, 48, 56, 64 or 96 bits",
            ),
            (
                "nat64 = [\"10.0.0.0/8\"]",
                ":1:10: ",
                "32, 40, 48, 56, 64 or 96 bits",
            ),
            ("hosts = []", ":1:1: ", "unknown field"),
            ("host = 10.0.0.1", ":1:12: ", "write text in quotes"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(
                error.contains(place) && error.contains(words),
                "{text}: {error}"
            );
            assert!(error.starts_with("/etc/qfence/host.toml:"), "{error}");
        }
    }

    #[test]
    fn a_missing_file_is_empty_and_an_unreadable_one_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("host.toml");
        assert_eq!(HostFile::read(&path).unwrap(), HostFile::default());
        std::fs::create_dir(&path).unwrap();
        assert!(HostFile::read(&path).is_err());
    }
}

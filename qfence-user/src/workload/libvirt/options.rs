//! What asks for the fence of a domain: a file of the administrator, /etc/qfence/domains.d/NAME.toml, or the element
//! `fence` in the domain's metadata. If there is a file, the metadata do not count.

use std::{collections::BTreeMap, path::Path};

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

use super::definition::Definition;
use crate::workload::files;

/// The most bytes of a file.
const LONGEST: u64 = 1 << 20;

/// The keys of a file and the attributes of the element, which are options of `attach`. Rules that deny come first, because
/// the first match decides.
const KEYS: [&str; 5] = ["name", "profile", "deny", "allow", "default"];

/// A value: one, or several.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "a value is a string, or a list of strings")]
enum Value {
    One(String),
    Several(Vec<String>),
}

/// The options of `attach` for a domain; `None` if nothing asks for a fence.
///
/// # Errors
/// If what asks for one cannot be read, or has something unknown in it.
pub fn of(definition: &Definition, directory: &Path) -> Result<Option<Vec<String>>> {
    let name = &definition.name;
    ensure!(
        files::is_file_name(name),
        "the domain's name {name:?} is no file name"
    );
    let path = directory.join(format!("{name}.toml"));
    if let Some(bytes) = files::bytes(&path, LONGEST)? {
        let context = || format!("cannot understand {}", path.display());
        let text = String::from_utf8(bytes).with_context(context)?;
        let given: BTreeMap<String, Value> = toml::from_str(&text).with_context(context)?;
        let given = given.into_iter().map(|(key, value)| match value {
            Value::One(one) => (key, vec![one]),
            Value::Several(several) => (key, several),
        });
        return options(given).with_context(context).map(Some);
    }
    let Some(attributes) = &definition.fence else {
        return Ok(None);
    };
    let given = attributes.iter().map(|(key, value)| {
        let is_list = matches!(key.as_str(), "deny" | "allow");
        let values = match is_list {
            true => value.split_whitespace().map(str::to_owned).collect(),
            false => vec![value.trim().to_owned()],
        };
        (key.clone(), values)
    });
    let context = || format!("cannot understand the metadata of the domain {name}");
    options(given).with_context(context).map(Some)
}

/// The options, in the order of [`KEYS`].
fn options(given: impl Iterator<Item = (String, Vec<String>)>) -> Result<Vec<String>> {
    let given: BTreeMap<_, _> = given.collect();
    for (key, values) in &given {
        ensure!(
            KEYS.contains(&key.as_str()),
            "there is no {key:?}: qfence has {}",
            KEYS.join(", ")
        );
        ensure!(
            !values.is_empty() && values.iter().all(|value| !value.trim().is_empty()),
            "{key} is empty: give it a value, or leave it out"
        );
        ensure!(
            values.len() == 1 || matches!(key.as_str(), "deny" | "allow"),
            "{key} has several values: give one"
        );
    }
    let options = KEYS.iter().flat_map(|key| {
        let values = given.get(*key).into_iter().flatten();
        values.map(move |value| format!("--{key}={value}"))
    });
    Ok(options.collect())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn domain(attributes: &[(&str, &str)]) -> Definition {
        let owned = attributes
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        Definition {
            name: "vm 1".into(),
            fence: Some(owned.collect()),
            ..Definition::default()
        }
    }

    #[test]
    fn a_file_comes_before_the_metadata() {
        let dir = tempfile::tempdir().unwrap();
        let domain = domain(&[("allow", "udp:any tcp:any"), ("deny", "lan")]);
        let of = |domain| of(domain, dir.path()).unwrap();
        assert_eq!(
            of(&domain).unwrap(),
            ["--deny=lan", "--allow=udp:any", "--allow=tcp:any"]
        );
        let text = "profile = \"internet-only\"\ndeny = [\"192.0.2.0/24\"]\nname = \"one\"\n";
        fs::write(dir.path().join("vm 1.toml"), text).unwrap();
        let by_file = [
            "--name=one",
            "--profile=internet-only",
            "--deny=192.0.2.0/24",
        ];
        assert_eq!(of(&domain).unwrap(), by_file);
        let unasked = Definition {
            fence: None,
            ..domain.clone()
        };
        assert_eq!(of(&unasked).unwrap(), by_file);
        fs::remove_file(dir.path().join("vm 1.toml")).unwrap();
        assert_eq!(of(&unasked), None);
    }

    #[test]
    fn what_is_unknown_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        for (key, value) in [("alow", "any"), ("profile", " "), ("deny", "")] {
            let refused = of(&domain(&[(key, value)]), dir.path());
            assert!(refused.is_err(), "{key}");
        }
        for text in ["nonsense = 1", "profile = [\"a\", \"b\"]", "profile"] {
            fs::write(dir.path().join("vm 1.toml"), text).unwrap();
            assert!(of(&domain(&[]), dir.path()).is_err(), "{text}");
        }
        fs::write(dir.path().join("vm 1.toml"), "deny = 1").unwrap();
        let refused = of(&domain(&[]), dir.path()).unwrap_err();
        assert!(
            format!("{refused:#}").contains("a list of strings"),
            "{refused:#}"
        );
        let outside = Definition {
            name: "../vm".into(),
            ..Definition::default()
        };
        assert!(of(&outside, dir.path()).is_err());
    }
}

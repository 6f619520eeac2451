//! The value of an option: `tap,id=n0,script=no`, or the same as JSON.

use serde_json::Value;

/// The maximum total length of a value's keys, in bytes. A nested JSON key is repeated in each key below it.
const LONGEST_KEYS: usize = 64 * 1024;

/// Keys and values in the order given. The last value of a key counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parameters {
    pairs: Vec<(String, String)>,
    asks_for_help: bool,
}

/// The reason why a value in JSON cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InvalidValue {
    /// It is not valid JSON.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    /// Its keys have more than 64 KiB in total.
    #[error("its keys are too long")]
    KeysTooLong,
}

impl Parameters {
    /// Parses a value as QEMU does: as JSON if it begins with a brace, otherwise as `key=value,…`. There, `,,` is a
    /// comma within a value, and a first word without `=` is the value of `implied`.
    ///
    /// # Errors
    /// [`InvalidValue`], if it begins with a brace. (QEMU also accepts single quotes, which are an error here.)
    pub fn parse(text: &str, implied: &str) -> Result<Self, InvalidValue> {
        if text.starts_with('{') {
            let mut parameters = Self::default();
            let mut room = LONGEST_KEYS;
            parameters.flatten(String::new(), serde_json::from_str(text)?, &mut room)?;
            Ok(parameters)
        } else {
            Ok(Self::with_implied(text, implied))
        }
    }

    /// Parses `key=value,…` with an implied first key; a brace has no meaning.
    #[must_use]
    pub fn with_implied(text: &str, implied: &str) -> Self {
        let mut parameters = Self::default();
        parameters.read(text, Some(implied));
        parameters
    }

    /// Parses `key=value,…` without an implied first key.
    #[must_use]
    pub fn without_implied(text: &str) -> Self {
        let mut parameters = Self::default();
        parameters.read(text, None);
        parameters
    }

    /// Adds a key, or changes its value.
    pub fn set(&mut self, key: &str, value: &str) {
        self.pairs.push((key.to_owned(), value.to_owned()));
    }

    /// All keys with their values, in the order given.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let pairs = self.pairs.iter();
        pairs.map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// Whether a boolean key is on; `None` if it is absent.
    #[must_use]
    pub fn is_on(&self, key: &str) -> Option<bool> {
        self.get(key).map(is_on)
    }

    /// The value of a key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        self.all(key).last()
    }

    /// All values of a key that can be repeated. In JSON they are a list of objects with a member `str`.
    pub fn all(&self, key: &str) -> impl Iterator<Item = &str> {
        let names = move |name: &str| {
            let rest = name.strip_prefix(key)?;
            let listed = rest
                .strip_prefix('.')
                .and_then(|rest| rest.strip_suffix(".str"));
            (rest.is_empty() || listed.is_some_and(|index| index.parse::<u32>().is_ok()))
                .then_some(())
        };
        self.pairs
            .iter()
            .filter(move |(name, _)| names(name).is_some())
            .map(|(_, value)| value.as_str())
    }

    /// Whether the word `help` is present: QEMU then prints help, and exits.
    #[must_use]
    pub const fn asks_for_help(&self) -> bool {
        self.asks_for_help
    }

    fn read(&mut self, mut text: &str, mut implied: Option<&str>) {
        while !text.is_empty() {
            let key = &text[..text.find(['=', ',']).unwrap_or(text.len())];
            let implied = implied.take();
            if text[key.len()..].starts_with('=') {
                let (value, rest) = value(&text[key.len() + 1..]);
                self.set(key, &value);
                text = rest;
            } else if let Some(implied) = implied {
                let (value, rest) = value(text);
                self.asks_for_help |= is_help(&value);
                self.set(implied, &value);
                text = rest;
            } else {
                self.asks_for_help |= is_help(key);
                match key.strip_prefix("no") {
                    Some(key) => self.set(key, "off"),
                    None => self.set(key, "on"),
                }
                text = text[key.len()..].strip_prefix(',').unwrap_or_default();
            }
        }
    }

    /// Objects and lists become dotted keys, as in `key=value,…`.
    fn flatten(&mut self, key: String, value: Value, room: &mut usize) -> Result<(), InvalidValue> {
        *room = room
            .checked_sub(key.len())
            .ok_or(InvalidValue::KeysTooLong)?;
        let below = |name: &str| match key.as_str() {
            "" => name.to_owned(),
            key => format!("{key}.{name}"),
        };
        match value {
            Value::Object(members) => {
                for (name, value) in members {
                    self.flatten(below(&name), value, room)?;
                }
            }
            Value::Array(values) => {
                for (index, value) in values.into_iter().enumerate() {
                    self.flatten(below(&index.to_string()), value, room)?;
                }
            }
            Value::String(text) => self.set(&key, &text),
            other => self.set(&key, &other.to_string()),
        }
        Ok(())
    }
}

/// Whether the value of a boolean key means on (`qapi_bool_parse` of QEMU's qapi/qapi-util.c).
#[must_use]
pub fn is_on(value: &str) -> bool {
    matches!(value, "on" | "yes" | "true" | "y")
}

fn is_help(word: &str) -> bool {
    matches!(word, "help" | "?")
}

/// A value up to the first single comma, and the rest after that comma.
fn value(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(',') {
        value.push_str(before);
        let Some(after) = after.strip_prefix(',') else {
            return (value, after);
        };
        value.push(',');
        rest = after;
    }
    value.push_str(rest);
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(text: &str) -> Vec<(String, String)> {
        Parameters::parse(text, "type").unwrap().pairs
    }

    fn expected(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        let own = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        pairs.iter().map(own).collect()
    }

    #[test]
    fn it_is_read_as_qemu_reads_it() {
        for (text, read) in [
            ("", &[][..]),
            ("tap", &[("type", "tap")]),
            ("type=tap,id=n", &[("type", "tap"), ("id", "n")]),
            ("tap,id=n", &[("type", "tap"), ("id", "n")]),
            (",type=tap", &[("type", ""), ("type", "tap")]),
            ("ta,,p", &[("type", "ta,p")]),
            (
                "x,path=a,,b,,,c=d",
                &[("type", "x"), ("path", "a,b,"), ("c", "d")],
            ),
            ("x,path=a=b", &[("type", "x"), ("path", "a=b")]),
            (
                "x,on,noipv4,",
                &[("type", "x"), ("on", "on"), ("ipv4", "off")],
            ),
            ("x,,", &[("type", "x,")]),
            ("id=n,tap", &[("id", "n"), ("tap", "on")]),
        ] {
            assert_eq!(pairs(text), expected(read), "{text}");
        }
    }

    #[test]
    fn json_says_the_same() {
        let json = r#"{"type": "stream", "id": "n", "server": false,
            "addr": {"type": "unix", "path": "/a,b"}, "reconnect": 1}"#;
        let json = Parameters::parse(json, "type").unwrap();
        let plain = "stream,id=n,server=false,addr.type=unix,addr.path=/a,,b,reconnect=1";
        let plain = Parameters::parse(plain, "type").unwrap();
        for key in [
            "type",
            "id",
            "server",
            "addr.type",
            "addr.path",
            "reconnect",
        ] {
            assert_eq!(json.get(key), plain.get(key), "{key}");
            assert!(json.get(key).is_some(), "{key}");
        }
        let single_quotes = Parameters::parse("{'type': 'tap'}", "type").unwrap_err();
        assert!(
            matches!(single_quotes, InvalidValue::Json(_)),
            "{single_quotes}"
        );
        assert!(Parameters::parse("{", "type").is_err());
    }

    #[test]
    fn keys_within_a_long_key_do_not_fill_the_memory() {
        let members: Vec<String> = (0..1000).map(|number| format!(r#""{number}":1"#)).collect();
        for (length, is_read) in [(8, true), (1000, false)] {
            let json = format!(r#"{{"{}":{{{}}}}}"#, "a".repeat(length), members.join(","));
            match Parameters::parse(&json, "type") {
                Ok(_) => assert!(is_read, "{length}"),
                Err(InvalidValue::KeysTooLong) => assert!(!is_read, "{length}"),
                Err(error) => panic!("{length}: {error}"),
            }
        }
    }

    #[test]
    fn of_a_key_given_twice_the_last_counts() {
        let parameters = Parameters::parse("user,type=tap", "type").unwrap();
        assert_eq!(parameters.get("type"), Some("tap"));
        assert_eq!(parameters.get("id"), None);
    }

    #[test]
    fn a_list_is_found_in_both_spellings() {
        for text in [
            "user,guestfwd=a,guestfwd=b",
            r#"{"type":"user","guestfwd":[{"str":"a"},{"str":"b"}]}"#,
        ] {
            let parameters = Parameters::parse(text, "type").unwrap();
            assert_eq!(parameters.all("guestfwd").collect::<Vec<_>>(), ["a", "b"]);
        }
    }

    #[test]
    fn a_word_asks_for_help_and_a_value_does_not() {
        for (text, asks) in [
            ("help", true),
            ("?", true),
            ("tap,help", true),
            ("tap,help=on", false),
            ("tap,id=help", false),
        ] {
            let parameters = Parameters::parse(text, "type").unwrap();
            assert_eq!(parameters.asks_for_help(), asks, "{text}");
        }
    }
}

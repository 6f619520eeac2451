//! MAC addresses.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A MAC address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Mac(pub [u8; 6]);

/// The text is no MAC address of one network card.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{text:?} is no MAC address; give six bytes, such as 52:54:00:12:34:56{more}")]
pub struct InvalidMac {
    text: String,
    more: &'static str,
}

impl Mac {
    /// The address as a number, as the programs for frames have it: the first byte is the highest of six.
    #[must_use]
    pub fn number(self) -> u64 {
        let [a, b, c, d, e, f] = self.0;
        u64::from_be_bytes([0, 0, a, b, c, d, e, f])
    }

    /// The address with this number.
    #[must_use]
    pub fn from_number(number: u64) -> Self {
        let [_, _, a, b, c, d, e, f] = number.to_be_bytes();
        Self([a, b, c, d, e, f])
    }

    /// Any six bytes with colons or hyphens between them: a guest may claim what no card can have, and that is on record.
    fn read(text: &str) -> Result<Self, InvalidMac> {
        let mut bytes = [0; 6];
        let mut words = text.split([':', '-']);
        for byte in &mut bytes {
            let word = words.next().unwrap_or_default();
            let is_short = matches!(word.len(), 1 | 2) && !word.starts_with('+');
            let read = u8::from_str_radix(word, 16).ok().filter(|_| is_short);
            *byte = read.ok_or_else(|| invalid(text, ""))?;
        }
        if words.next().is_some() {
            return Err(invalid(text, ""));
        }
        Ok(Self(bytes))
    }

    /// Whether it names several cards: such an address is no source.
    #[must_use]
    pub fn is_of_many(self) -> bool {
        self.0[0] & 1 == 1
    }
}

/// Six bytes with colons or hyphens between them, which one network card can have.
impl FromStr for Mac {
    type Err = InvalidMac;

    fn from_str(text: &str) -> Result<Self, InvalidMac> {
        let mac = Self::read(text)?;
        if mac.is_of_many() {
            return Err(invalid(
                text,
                ", and none for several cards (its first byte is odd)",
            ));
        }
        if mac.0 == [0; 6] {
            return Err(invalid(text, ", and not all zero"));
        }
        Ok(mac)
    }
}

fn invalid(text: &str, more: &'static str) -> InvalidMac {
    InvalidMac {
        text: text.chars().take(64).collect(),
        more,
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, last] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{last:02x}")
    }
}

impl From<Mac> for String {
    fn from(mac: Mac) -> Self {
        mac.to_string()
    }
}

impl TryFrom<String> for Mac {
    type Error = InvalidMac;

    fn try_from(text: String) -> Result<Self, InvalidMac> {
        Self::read(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_and_written() {
        let mac: Mac = "52:54:00:Ab:3:ff".parse().unwrap();
        assert_eq!(mac.to_string(), "52:54:00:ab:03:ff");
        assert_eq!(mac.number(), 0x5254_00ab_03ff);
        assert_eq!(Mac::from_number(mac.number()), mac);
        assert_eq!("52-54-00-ab-03-ff".parse(), Ok(mac));
    }

    #[test]
    fn what_a_guest_claims_is_read_back_from_the_record() {
        for text in [
            "ff:ff:ff:ff:ff:ff",
            "27:71:65:6e:62:69",
            "00:00:00:00:00:00",
        ] {
            let json = format!("{text:?}");
            let mac: Mac = serde_json::from_str(&json).unwrap();
            assert_eq!(serde_json::to_string(&mac).unwrap(), json);
        }
        assert!(serde_json::from_str::<Mac>("\"ff:ff:ff\"").is_err());
    }

    #[test]
    fn other_texts_are_errors() {
        for text in [
            "",
            "52:54:00:12:34",
            "52:54:00:12:34:56:78",
            "52:54:00:12:34:567",
            "52:54:00:12:34:+6",
            "52:54:00:12:34:xy",
            "52::00:12:34:56",
            "525400123456",
            "00:00:00:00:00:00",
            "53:54:00:12:34:56",
            "ff:ff:ff:ff:ff:ff",
        ] {
            assert!(text.parse::<Mac>().is_err(), "{text}");
        }
    }
}

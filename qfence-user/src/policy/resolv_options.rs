//! The options in the text of a resolv.conf(5) that say how nameservers are asked.

use std::time::Duration;

/// How nameservers are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResolvOptions {
    /// How long to wait for an answer of one (`timeout:N`).
    pub timeout: Duration,
    /// How often all of them are asked (`attempts:N`).
    pub attempts: u32,
    /// Whether each question begins with the next one (`rotate`).
    pub rotates: bool,
    /// Whether they are asked by TCP only (`use-vc`).
    pub by_tcp: bool,
}

/// The largest values (`RES_MAXRETRANS` and `RES_MAXRETRY` in resolv/resolv-internal.h of glibc).
const LONGEST_TIMEOUT: u32 = 30;
const MOST_ATTEMPTS: u32 = 5;

impl Default for ResolvOptions {
    /// Those of a file without options.
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(5),
            attempts: 2,
            rotates: false,
            by_tcp: false,
        }
    }
}

impl ResolvOptions {
    /// The options of all `options` lines, as glibc reads them: values that are too large are the largest ones, and unknown
    /// options are skipped. Zero counts as one: with glibc it is a timeout of a second, and no attempt at all.
    #[must_use]
    pub fn read(resolv_conf: &[u8]) -> Self {
        let mut read = Self::default();
        for line in resolv_conf.split(|byte| *byte == b'\n') {
            // C strings end there.
            let line = line.split(|byte| *byte == 0).next().unwrap_or_default();
            let words = line.split(u8::is_ascii_whitespace);
            let mut words = words.filter(|word| !word.is_empty());
            if words.next() == Some(b"options") {
                words.for_each(|word| read.take(word));
            }
        }
        read
    }

    fn take(&mut self, word: &[u8]) {
        if let Some(seconds) = word.strip_prefix(b"timeout:") {
            let seconds = number(seconds).clamp(1, LONGEST_TIMEOUT);
            self.timeout = Duration::from_secs(seconds.into());
        } else if let Some(attempts) = word.strip_prefix(b"attempts:") {
            self.attempts = number(attempts).clamp(1, MOST_ATTEMPTS);
        } else if word == b"rotate" {
            self.rotates = true;
        } else if word == b"use-vc" {
            self.by_tcp = true;
        }
    }
}

/// The digits at the beginning, like atoi(3). What is no number, or negative, is zero.
fn number(text: &[u8]) -> u32 {
    let text = text.strip_prefix(b"+").unwrap_or(text);
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit());
    digits.fold(0, |number: u32, digit| {
        let digit = u32::from(digit - b'0');
        number.saturating_mul(10).saturating_add(digit)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (u64, u32, bool, bool) {
        let read = ResolvOptions::read(text.as_bytes());
        (
            read.timeout.as_secs(),
            read.attempts,
            read.rotates,
            read.by_tcp,
        )
    }

    #[test]
    fn options_are_read_as_the_c_library_reads_them() {
        for (text, expected) in [
            ("", (5, 2, false, false)),
            (
                "nameserver 192.0.2.1\noptions edns0 trust-ad\n",
                (5, 2, false, false),
            ),
            (
                "options timeout:1 attempts:3 rotate use-vc",
                (1, 3, true, true),
            ),
            (
                "options\ttimeout:7\nnameserver ::1\noptions rotate\r\n",
                (7, 2, true, false),
            ),
            ("options timeout:2\noptions timeout:3", (3, 2, false, false)),
            ("options timeout:31 attempts:6", (30, 5, false, false)),
            (
                "options timeout:99999999999999999999",
                (30, 2, false, false),
            ),
            ("options timeout:0 attempts:0", (1, 1, false, false)),
            ("options timeout:-3 attempts:x", (1, 1, false, false)),
            ("options timeout:4s attempts:+4", (4, 4, false, false)),
            (
                "options timeout: timeout attempts rotated",
                (1, 2, false, false),
            ),
            (
                "# options rotate\nsearch options rotate",
                (5, 2, false, false),
            ),
            ("options rotate\0use-vc", (5, 2, true, false)),
        ] {
            assert_eq!(read(text), expected, "{text:?}");
        }
    }
}

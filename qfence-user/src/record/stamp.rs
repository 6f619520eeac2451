//! A stored line: the line of the JSON log, preceded by the ABI version of its writer and by what only the next reader
//! needs.

use super::line::Line;
use crate::base::version::{self, OtherVersion};

/// The beginning of each stored line. The number follows.
const BEGIN: &str = r#"{"abi":"#;

/// The result of reading a stored line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Read {
    /// A line of this version.
    Line(Box<Line>),
    /// A line of another version.
    Other(OtherVersion),
    /// Not a line, or an incomplete one.
    Nothing,
}

/// A line as a stored line, without a newline.
///
/// # Errors
/// As [`Line::to_json`].
pub fn stamped(line: &Line) -> serde_json::Result<String> {
    let json = line.to_json()?;
    let fields = json.strip_prefix('{').unwrap_or(&json);
    let beside = match line.beside {
        0 => String::new(),
        beside => format!(r#""beside":{beside},"#),
    };
    Ok(format!("{BEGIN}{},{beside}{fields}", version::abi()))
}

/// Reads a stored line, with or without its newline.
#[must_use]
pub fn read(kept: &[u8]) -> Read {
    let Ok(text) = str::from_utf8(kept) else {
        return Read::Nothing;
    };
    let stamp = text
        .strip_prefix(BEGIN)
        .and_then(|rest| rest.split_once(','))
        .and_then(|(number, fields)| Some((number.parse().ok()?, fields)));
    let Some((found, fields)) = stamp else {
        // Before versions were introduced, a line was stored as it is logged.
        return match serde_json::from_str::<Line>(text) {
            Ok(_) => other(0),
            Err(_) => Read::Nothing,
        };
    };
    if found != version::abi() {
        return other(found);
    }
    match serde_json::from_str(&format!("{{{fields}")) {
        Ok(line) => Read::Line(line),
        Err(_) => Read::Nothing,
    }
}

fn other(found: u32) -> Read {
    match version::check(found, "the record") {
        Err(other) => Read::Other(other),
        Ok(()) => Read::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use qfence_common::{Hook, address::from_v4};

    use super::*;
    use crate::record::line::tests::line;

    #[test]
    fn a_kept_line_is_read_by_its_own_version_alone() {
        let line = line(Hook::Connect4, from_v4([127, 0, 0, 1]), 6, 22, 1);
        let json = line.to_json().unwrap();
        let kept = stamped(&line).unwrap();
        let abi = version::abi();
        let [own, next] = [abi, abi + 1].map(|abi| format!(r#"{{"abi":{abi},"#));
        assert!(kept.starts_with(&format!(r#"{own}"v":1,"#)), "{kept}");
        assert_eq!(read(kept.as_bytes()), Read::Line(line.clone().into()));
        let with_drops = Line { beside: 3, ..line };
        let kept_with = stamped(&with_drops).unwrap();
        assert_eq!(with_drops.to_json().unwrap(), json);
        assert_eq!(read(kept_with.as_bytes()), Read::Line(with_drops.into()));
        for (other, number) in [
            (kept.replace(&own, &next), abi + 1),
            // A version with an entirely different format.
            (format!(r#"{next}"what":"else"}}"#), abi + 1),
            (json, 0),
        ] {
            match read(other.as_bytes()) {
                Read::Other(OtherVersion { found, .. }) => assert_eq!(found, number),
                read => panic!("{other}: {read:?}"),
            }
        }
        for nothing in ["", "{", r#"{"abi":"#, &own, &format!(r#"{own}"v":1"#), "x"] {
            assert_eq!(read(nothing.as_bytes()), Read::Nothing, "{nothing}");
        }
    }
}

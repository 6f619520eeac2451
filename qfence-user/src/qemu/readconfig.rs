//! Configuration files, as `-readconfig` takes them.
//!
//! ```text
//! [netdev "n0"]
//!   type = "user"
//! ```

use super::parameters::Parameters;

/// The maximum length of a line in QEMU.
const LONGEST: usize = 1022;

/// One section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    /// The name of the section, usually that of an option.
    pub group: String,
    /// The heading, for messages: `[netdev "n0"]`.
    pub heading: String,
    /// The parameters of the section, and its id.
    pub parameters: Parameters,
}

/// A line that is invalid here. Some version of QEMU might accept it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("qfence cannot parse line {0} of this file")]
pub struct InvalidLine(
    /// The number of the line, starting at 1.
    pub usize,
);

/// Parses a file.
///
/// # Errors
/// [`InvalidLine`]: the first one.
pub fn sections(text: &str) -> Result<Vec<Section>, InvalidLine> {
    let mut sections: Vec<Section> = Vec::new();
    for (index, line) in text.lines().enumerate() {
        if line.len() > LONGEST {
            return Err(InvalidLine(index + 1));
        }
        // After a leading space, neither a comment nor a heading is recognized.
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(section) = heading(line) {
            sections.push(section);
        } else if let (Some((key, value)), Some(section)) = (assignment(line), sections.last_mut())
        {
            section.parameters.set(key, value);
        } else {
            return Err(InvalidLine(index + 1));
        }
    }
    Ok(sections)
}

/// `[group "id"]`, or `[group]`. QEMU ignores the rest of the line.
fn heading(line: &str) -> Option<Section> {
    let inside = line.strip_prefix('[')?.trim_start();
    let named = inside
        .split_once(char::is_whitespace)
        .and_then(|(group, rest)| Some((group, rest.trim_start().strip_prefix('"')?)))
        .map(|(group, id)| (group, &id[..id.find('"').unwrap_or(id.len())]))
        .filter(|(group, id)| !group.is_empty() && !id.is_empty());
    let mut parameters = Parameters::default();
    let (group, heading) = if let Some((group, id)) = named {
        parameters.set("id", id);
        (group, format!("[{group} \"{id}\"]"))
    } else {
        let group = inside[..inside.find(']').unwrap_or(inside.len())].trim_end();
        (group, format!("[{group}]"))
    };
    (!group.is_empty()).then(|| Section {
        group: group.to_owned(),
        heading,
        parameters,
    })
}

/// `key = "value"`. A space is required after the key.
fn assignment(line: &str) -> Option<(&str, &str)> {
    let (key, rest) = line.trim_start().split_once(char::is_whitespace)?;
    let value = rest.trim_start().strip_prefix('=')?;
    let value = value.trim_start().strip_prefix('"')?;
    Some((key, &value[..value.find('"').unwrap_or(value.len())]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_are_read_as_qemu_reads_them() {
        let text = "# a comment\n\n[netdev \"n0\"]\n  type = \"tap\"\nscript=\t\"no\" \n";
        assert_eq!(sections(text), Err(InvalidLine(5)), "a space is missing");
        let text = text.replace("script=", "script =");
        let text = format!("{text}[nic]\n\ttype = \"user\n[ net  \"v\" ]\n");
        let read = sections(&text).unwrap();
        let headings: Vec<_> = read
            .iter()
            .map(|section| section.heading.as_str())
            .collect();
        assert_eq!(headings, ["[netdev \"n0\"]", "[nic]", "[net \"v\"]"]);
        assert_eq!(read[0].group, "netdev");
        assert_eq!(read[0].parameters.get("id"), Some("n0"));
        assert_eq!(read[0].parameters.get("type"), Some("tap"));
        assert_eq!(read[0].parameters.get("script"), Some("no"));
        assert_eq!(read[1].group, "nic");
        assert_eq!(read[1].parameters.get("id"), None);
        assert_eq!(read[1].parameters.get("type"), Some("user"));
    }

    #[test]
    fn what_is_not_understood_is_an_error() {
        for (text, line) in [
            ("type = \"tap\"\n", 1),
            ("[netdev \"n\"]\n type = tap\n", 2),
            ("[netdev \"n\"]\n   \n", 2),
            ("[]\n", 1),
            ("# ", 0),
        ] {
            let read = sections(text).err().map_or(0, |InvalidLine(line)| line);
            assert_eq!(read, line, "{text:?}");
        }
        let long = format!("#{}[nic]\ntype = \"tap\"\n", " ".repeat(LONGEST));
        assert_eq!(sections(&long), Err(InvalidLine(1)));
    }
}

//! A section of a man page from plain text: paragraphs are filled, and what is indented stays as it is.

use anyhow::Result;
use clap_mangen::roff::{Roff, roman};

/// The section of that name.
pub(super) fn section(name: &str, text: &str) -> Result<String> {
    let mut roff = Roff::new();
    roff.control("SH", [name]);
    let mut is_shown = false;
    // Whether a paragraph begins; the heading has begun the first.
    let mut is_new = false;
    for line in text.lines() {
        if line.trim().is_empty() {
            is_new = true;
            continue;
        }
        let is_indented = line.starts_with(' ');
        if is_indented != is_shown {
            roff.control(if is_indented { "EX" } else { "EE" }, []);
            is_shown = is_indented;
        }
        if is_new {
            roff.control(if is_shown { "sp" } else { "PP" }, []);
        }
        is_new = false;
        roff.text([roman(line)]);
    }
    if is_shown {
        roff.control("EE", []);
    }
    let mut bytes = Vec::new();
    roff.to_writer(&mut bytes)?;
    let text = String::from_utf8(bytes)?;
    // The definitions that a page begins with are in it already.
    let (_, section) = text.split_once(".SH").unwrap_or(("", &text));
    Ok(format!(".SH{section}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paragraphs_are_filled_and_what_is_indented_is_kept() {
        let text = section("NOTES", "One:\n  sudo x --y\n\n  z\nTwo.\n\nThree\nlines.").unwrap();
        let expected =
            ".SH NOTES\nOne:\n.EX\n  sudo x \\-\\-y\n.sp\n  z\n.EE\nTwo.\n.PP\nThree\nlines.\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn what_ends_indented_is_ended() {
        let text = section("SEE ALSO", "  a").unwrap();
        assert_eq!(text, ".SH \"SEE ALSO\"\n.EX\n  a\n.EE\n");
    }
}

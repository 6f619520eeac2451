//! An error at a position of a text, with an excerpt.

use std::{fmt, ops::Range};

/// An error, and the bytes of the text that cause it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The bytes at fault.
    pub span: Range<usize>,
    /// The message.
    pub message: String,
}

/// Lines and columns of a text.
pub(super) struct Lines<'a> {
    text: &'a str,
    /// The offset of each line.
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        let after = text.match_indices('\n').map(|(index, _)| index + 1);
        Self {
            text,
            starts: std::iter::once(0).chain(after).collect(),
        }
    }

    /// The number of the line that contains a byte, from 1.
    pub(super) fn number(&self, offset: usize) -> usize {
        self.starts.partition_point(|&start| start <= offset)
    }

    /// A line without its newline, and its offset.
    fn line(&self, number: usize) -> (usize, &'a str) {
        let start = self.starts.get(number - 1).copied().unwrap_or_default();
        let line = self.text.get(start..).unwrap_or_default();
        (start, line.lines().next().unwrap_or_default())
    }
}

/// An error in a file: `FILE:LINE:COLUMN: MESSAGE`, and the line with carets under the fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Misplaced {
    /// The file.
    pub file: String,
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
    /// The message.
    pub message: String,
    /// An excerpt of the line, safe to print.
    excerpt: String,
    /// The offset of the fault in the excerpt, in characters.
    indent: usize,
    /// The length of the fault, in characters.
    width: usize,
}

/// The most characters of a line that are shown before the start of the fault, and after it.
const AROUND: usize = 60;

impl Misplaced {
    pub(super) fn new(file: String, text: &str, fault: Fault) -> Self {
        let lines = Lines::new(text);
        let at = text.floor_char_boundary(fault.span.start);
        let number = lines.number(at);
        let (start, line) = lines.line(number);
        // At the end of a line or file, something is missing there.
        let split = line.floor_char_boundary(at - start);
        let (before, from) = line.split_at(split);
        let column = before.chars().count();
        let end = line.floor_char_boundary(fault.span.end.saturating_sub(start).max(split));
        let width = line[split..end].chars().count();

        let cut = column.saturating_sub(AROUND);
        let mut excerpt = String::new();
        if cut > 0 {
            excerpt.push('…');
        }
        excerpt.extend(before.chars().skip(cut));
        let indent = excerpt.chars().count();
        excerpt.extend(from.chars().take(AROUND));
        if from.chars().nth(AROUND).is_some() {
            excerpt.push('…');
        }
        Self {
            file,
            line: number,
            column: column + 1,
            message: fault.message,
            excerpt: excerpt
                .chars()
                .map(|character| {
                    if character.is_control() {
                        ' '
                    } else {
                        character
                    }
                })
                .collect(),
            indent,
            width: width.clamp(1, AROUND),
        }
    }
}

impl fmt::Display for Misplaced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            file,
            line,
            column,
            message,
            excerpt,
            indent,
            width,
        } = self;
        let gutter = line.to_string().len();
        writeln!(f, "{file}:{line}:{column}: {message}")?;
        writeln!(f, "{:gutter$} |", "")?;
        writeln!(f, "{}", format!("{line} | {excerpt}").trim_end())?;
        write!(f, "{:gutter$} | {:indent$}{:^<width$}", "", "", "")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str, span: Range<usize>) -> String {
        let message = "wrong".to_owned();
        Misplaced::new("f".to_owned(), text, Fault { span, message }).to_string()
    }

    #[test]
    fn the_text_is_shown_and_pointed_at() {
        let text = "one\ntwo = 3\nfour\n";
        assert_eq!(
            shown(text, 10..11),
            "f:2:7: wrong\n  |\n2 | two = 3\n  |       ^"
        );
        assert_eq!(shown(text, 0..3), "f:1:1: wrong\n  |\n1 | one\n  | ^^^");
    }

    #[test]
    fn columns_are_characters() {
        let text = "# \n\"äöü\" = x";
        let at = text.find('x').unwrap();
        assert_eq!(
            shown(text, at..at + 1),
            "f:2:9: wrong\n  |\n2 | \"äöü\" = x\n  |         ^"
        );
    }

    #[test]
    fn the_end_of_a_line_and_of_the_text_can_be_pointed_at() {
        assert_eq!(
            shown("a =\nb", 3..4),
            "f:1:4: wrong\n  |\n1 | a =\n  |    ^"
        );
        assert_eq!(shown("a =", 3..3), "f:1:4: wrong\n  |\n1 | a =\n  |    ^");
        assert_eq!(shown("a\n", 2..2), "f:2:1: wrong\n  |\n2 |\n  | ^");
        assert_eq!(shown("", 0..0), "f:1:1: wrong\n  |\n1 |\n  | ^");
        assert_eq!(shown("a\r\nb", 1..2), "f:1:2: wrong\n  |\n1 | a\n  |  ^");
    }

    #[test]
    fn of_several_lines_the_first_is_shown() {
        assert_eq!(
            shown("a = [\n1\n]", 4..9),
            "f:1:5: wrong\n  |\n1 | a = [\n  |     ^"
        );
    }

    #[test]
    fn of_a_long_line_the_neighbourhood_is_shown() {
        let text = format!("{}X{}", "a".repeat(1000), "b".repeat(1000));
        let shown = shown(&text, 1000..1001);
        assert!(shown.starts_with("f:1:1001: wrong\n"));
        assert!(shown.contains("aX"), "{shown}");
        assert!(shown.len() < 300, "{shown}");
        let column = |line: &str, what| line.chars().position(|character| character == what);
        let lines: Vec<_> = shown.lines().collect();
        assert_eq!(column(lines[2], 'X'), column(lines[3], '^'));
    }

    #[test]
    fn what_is_shown_is_safe_to_print() {
        assert!(!shown("a\u{1b}[31m\t= 1", 9..10).contains(['\u{1b}', '\t']));
    }

    #[test]
    fn spans_out_of_the_text_do_no_harm() {
        let reversed = Range { start: 2, end: 0 };
        for (text, span) in [
            ("abc", reversed),
            ("a", 5..9),
            ("ä", 1..1),
            ("", 7..7),
            ("a\nb", 1..99),
        ] {
            assert!(shown(text, span).starts_with("f:"));
        }
    }
}

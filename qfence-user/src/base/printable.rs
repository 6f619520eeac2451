//! Makes text that others chose safe to print.

use unicode_general_category::{GeneralCategory, get_general_category};

/// Invisible characters that the escaped categories do not include: the rest of Unicode's
/// `Default_Ignorable_Code_Point` (DerivedCoreProperties.txt of Unicode 16), first and last.
const INVISIBLE: [(char, char); 10] = [
    ('\u{34f}', '\u{34f}'),
    ('\u{115f}', '\u{1160}'),
    ('\u{17b4}', '\u{17b5}'),
    ('\u{180b}', '\u{180f}'),
    ('\u{2065}', '\u{2065}'),
    ('\u{3164}', '\u{3164}'),
    ('\u{fe00}', '\u{fe0f}'),
    ('\u{ffa0}', '\u{ffa0}'),
    ('\u{fff0}', '\u{fff8}'),
    ('\u{e0000}', '\u{e0fff}'),
];

/// Makes foreign text (a process's name, a command line) safe to print. Control characters, invisible characters,
/// those that change the direction of text, and bytes that are not UTF-8 become `\xNN` for each byte.
#[must_use]
pub fn printable(bytes: &[u8]) -> String {
    escaped(bytes, is_unprintable)
}

/// Also escapes the characters by which text in parentheses could look like the words after it.
#[must_use]
pub fn in_parentheses(text: &str) -> String {
    escaped(text.as_bytes(), |character| {
        is_unprintable(character) || matches!(character, '(' | ')' | ',')
    })
}

/// Makes a message or a table safe to print. Line breaks and tabs stay as they are.
#[must_use]
pub fn printable_lines(text: &str) -> String {
    escaped(text.as_bytes(), |character| {
        is_unprintable(character) && !matches!(character, '\n' | '\t')
    })
}

/// Makes a name safe to print before other fields of a line. Blanks, and the parentheses in which a field can be, are
/// escaped too.
#[must_use]
pub fn in_one_word(text: &str) -> String {
    escaped(text.as_bytes(), |character| {
        is_unprintable(character) || character.is_whitespace() || matches!(character, '(' | ')')
    })
}

/// Makes JSON safe to print: the characters that [`printable`] escapes become `\uXXXX`, so the values stay the same.
#[must_use]
pub fn printable_json(json: String) -> String {
    // Outside of strings there are only ASCII characters, none of them unprintable in JSON on one line.
    if !json.chars().any(is_unprintable) {
        return json;
    }
    let mut out = String::with_capacity(json.len());
    for character in json.chars() {
        if is_unprintable(character) {
            for unit in character.encode_utf16(&mut [0; 2]) {
                out.push_str(&format!("\\u{unit:04x}"));
            }
        } else {
            out.push(character);
        }
    }
    out
}

/// The first `longest` bytes of a text. An ellipsis after them marks text that was cut off.
#[must_use]
pub fn shortened(text: String, longest: usize) -> String {
    if text.len() <= longest {
        return text;
    }
    let end = text.floor_char_boundary(longest);
    format!("{}…", &text[..end])
}

/// The words of a command, safe to print: at most `longest` bytes, and an ellipsis if some are left out.
#[must_use]
pub fn printable_words<'a>(
    words: impl IntoIterator<Item = &'a [u8]>,
    longest: usize,
) -> Vec<String> {
    let mut left = longest;
    let mut printed = Vec::new();
    for word in words {
        if left == 0 {
            printed.push("…".to_owned());
            break;
        }
        // Only the part of a word that may be printed is escaped.
        let word = printable(&word[..word.len().min(left + 1)]);
        let room = left;
        // An empty word takes room too.
        left = left.saturating_sub(word.len().max(1));
        printed.push(shortened(word, room));
    }
    printed
}

/// Whether a character is a control character, is invisible, or changes the direction of text.
#[must_use]
pub fn is_unprintable(character: char) -> bool {
    // The category is looked up in a large table.
    if character.is_ascii() {
        return character.is_ascii_control();
    }
    let is_between = |(first, last): &(char, char)| (*first..=*last).contains(&character);
    matches!(
        get_general_category(character),
        GeneralCategory::Control
            | GeneralCategory::Format
            | GeneralCategory::LineSeparator
            | GeneralCategory::ParagraphSeparator
    ) || INVISIBLE.iter().any(is_between)
}

fn escaped(bytes: &[u8], is_escaped: impl Fn(char) -> bool) -> String {
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            if is_escaped(character) {
                let mut buffer = [0; 4];
                escape(character.encode_utf8(&mut buffer).as_bytes(), &mut out);
            } else {
                out.push(character);
            }
        }
        escape(chunk.invalid(), &mut out);
    }
    out
}

fn escape(bytes: &[u8], out: &mut String) {
    for byte in bytes {
        out.push_str(&format!("\\x{byte:02x}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_between_characters_and_it_is_marked() {
        let cut = |text: &str, longest| shortened(text.to_owned(), longest);
        assert_eq!(cut("abc", 3), "abc");
        assert_eq!(cut("abcd", 3), "abc…");
        assert_eq!(cut("ab\u{e9}", 3), "ab…");
    }

    #[test]
    fn a_command_is_as_long_as_it_may_be_however_many_words_it_has() {
        let words = |command: &[&str], longest| {
            printable_words(command.iter().map(|word| word.as_bytes()), longest)
        };
        assert_eq!(words(&["ls", "-l", ""], 100), ["ls", "-l", ""]);
        assert_eq!(words(&["ls", "-l", "x"], 4), ["ls", "-l", "…"]);
        assert_eq!(words(&["ls", "-long", "x"], 4), ["ls", "-l…", "…"]);
        assert_eq!(words(&["\x1b\x1b"], 4), ["\\x1b…"]);
        assert_eq!(words(&[""; 1000], 4).len(), 5);
        let long = "x".repeat(1 << 20);
        let printed = words(&[&long, &long], 4096);
        assert_eq!(printed.len(), 2);
        assert!(printed.concat().len() < 4200);
    }

    #[test]
    fn a_name_cannot_drive_the_terminal() {
        assert_eq!(printable(b"qemu-system-x86"), "qemu-system-x86");
        assert_eq!(printable(b"\x1b[2Jgone\n"), "\\x1b[2Jgone\\x0a");
        assert_eq!(printable(b"caf\xc3\xa9 \xff"), "caf\u{e9} \\xff");
        // C1 control characters drive some terminals too.
        assert_eq!(printable("\u{9b}31m".as_bytes()), "\\xc2\\x9b31m");
    }

    #[test]
    fn a_name_cannot_turn_round_or_hide_what_comes_after_it() {
        for (character, escaped) in [
            ('\u{202e}', "\\xe2\\x80\\xae"),
            ('\u{2066}', "\\xe2\\x81\\xa6"),
            ('\u{200b}', "\\xe2\\x80\\x8b"),
            ('\u{200f}', "\\xe2\\x80\\x8f"),
            ('\u{61c}', "\\xd8\\x9c"),
            ('\u{ad}', "\\xc2\\xad"),
            ('\u{2028}', "\\xe2\\x80\\xa8"),
            ('\u{2029}', "\\xe2\\x80\\xa9"),
            ('\u{feff}', "\\xef\\xbb\\xbf"),
            ('\u{e0041}', "\\xf3\\xa0\\x81\\x81"),
            ('\u{3164}', "\\xe3\\x85\\xa4"),
            ('\u{fe0f}', "\\xef\\xb8\\x8f"),
        ] {
            assert_eq!(printable(character.to_string().as_bytes()), escaped);
        }
        // Letters and accents of all scripts are unchanged.
        for text in [
            "Größe",
            "\u{5d0}\u{5d1}",
            "e\u{301}",
            "\u{5b57}",
            "\u{1f600}",
        ] {
            assert_eq!(printable(text.as_bytes()), text);
        }
    }

    #[test]
    fn a_message_keeps_its_lines_and_nothing_else_of_that_kind() {
        assert_eq!(
            printable_lines("f:1:1: wrong\n  |\t\u{202e}x\x1b[1m\r"),
            "f:1:1: wrong\n  |\t\\xe2\\x80\\xaex\\x1b[1m\\x0d"
        );
    }

    #[test]
    fn a_name_is_one_word() {
        assert_eq!(in_one_word("/run/bus"), "/run/bus");
        assert_eq!(
            in_one_word("/a pid 1\u{a0}(init)\u{202e}"),
            "/a\\x20pid\\x201\\xc2\\xa0\\x28init\\x29\\xe2\\x80\\xae"
        );
    }

    #[test]
    fn json_has_the_same_values_and_nothing_that_drives_a_terminal() {
        let text = "a\u{202e}b\u{e0041}\u{7f}\u{9b}\u{e9}\u{1f600}\n\"\\";
        let json = printable_json(serde_json::to_string(&[text]).unwrap());
        assert!(!json.chars().any(is_unprintable), "{json}");
        assert!(
            json.contains("a\\u202eb\\udb40\\udc41\\u007f\\u009b\u{e9}\u{1f600}\\n"),
            "{json}"
        );
        assert_eq!(serde_json::from_str::<[String; 1]>(&json).unwrap(), [text]);
    }

    #[test]
    fn what_stands_in_parentheses_stays_there() {
        assert_eq!(in_parentheses("a) cgroup 1"), "a\\x29 cgroup 1");
        assert_eq!(in_parentheses("(a, state R"), "\\x28a\\x2c state R");
        assert_eq!(in_parentheses("qemu-system-x86"), "qemu-system-x86");
        // Escaped text is unchanged.
        assert_eq!(in_parentheses(&printable(b"\x1b")), "\\x1b");
    }
}

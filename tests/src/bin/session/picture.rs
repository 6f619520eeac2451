//! Draws terminals as SVG. Text stays text, in any available monospaced font. The picture contains no fonts and no style
//! sheets, and has a background of its own, for light and dark pages.

use std::fmt::{self, Write as _};

use vt100::{Cell, Color, Screen};

/// The width of a column and the height of a line, in pixels: a monospaced glyph is 0.6 times as wide as the font is high.
const COLUMN: f64 = 7.8;
const LINE: f64 = 18.0;
const FONT: &str = "font-family=\"ui-monospace, 'DejaVu Sans Mono', 'Liberation Mono', Menlo, Consolas, monospace\" \
                    font-size=\"13\"";
/// The height of a line above its baseline.
const BASELINE: f64 = 13.0;
const PADDING: f64 = 16.0;
/// The height of a window's title bar.
const BAR: f64 = 28.0;
/// The gap between two windows.
const GAP: f64 = 12.0;

const BACKGROUND: &str = "#1b2330";
const TITLE_BAR: &str = "#2a3445";
const MUTED: &str = "#9aa7b8";
const FOREGROUND: &str = "#dbe2ea";

/// xterm's first 16 colours, light enough for the background.
const COLOURS: [&str; 16] = [
    "#5c6675", "#ef6b73", "#8fce72", "#e5c07b", "#6cb2f2", "#cf8ee6", "#5fc5cf", "#dbe2ea",
    "#7d8899", "#ff8a91", "#a9e38c", "#f2d394", "#8fc8ff", "#e0a8f5", "#82dde6", "#ffffff",
];

/// A terminal and its title.
pub(super) struct Window<'a> {
    title: &'a str,
    screen: &'a Screen,
}

impl<'a> Window<'a> {
    pub(super) fn new(title: &'a str, screen: &'a Screen) -> Self {
        Self { title, screen }
    }

    /// The number of lines to draw: up to the last that is not empty.
    fn lines(&self) -> usize {
        let rows: Vec<_> = self.screen.rows(0, self.screen.size().1).collect();
        let last = rows.iter().rposition(|row| !row.trim().is_empty());
        last.map_or(0, |last| last + 1)
    }

    fn height(&self) -> f64 {
        BAR + lengths(self.lines(), LINE) + PADDING
    }

    fn width(&self) -> f64 {
        f64::from(self.screen.size().1) * COLUMN + 2.0 * PADDING
    }

    fn draw(&self, svg: &mut String, top: f64, width: f64) -> fmt::Result {
        let height = self.height();
        writeln!(
            svg,
            r#"<rect y="{top}" width="{width:.1}" height="{height}" rx="8" fill="{TITLE_BAR}"/>
<path d="M0 {y}h{width:.1}v{straight}a8 8 0 0 1 -8 8h-{across:.1}a8 8 0 0 1 -8 -8z" fill="{BACKGROUND}"/>
<text x="{PADDING}" y="{baseline}" fill="{MUTED}">{title}</text>"#,
            y = top + BAR,
            straight = height - BAR - 8.0,
            across = width - 16.0,
            baseline = top + 19.0,
            title = escape(self.title),
        )?;
        for (row, line) in (0..self.screen.size().0).take(self.lines()).zip(1_u16..) {
            let y = top + BAR + f64::from(line) * LINE;
            for (column, columns) in inverse(self.screen, row) {
                writeln!(
                    svg,
                    r#"<rect x="{x:.1}" y="{y}" width="{width:.1}" height="{LINE}" fill="{FOREGROUND}"/>"#,
                    x = PADDING + f64::from(column) * COLUMN,
                    y = y - BASELINE,
                    width = f64::from(columns) * COLUMN,
                )?;
            }
            for run in runs(self.screen, row) {
                run.draw(svg, y)?;
            }
        }
        Ok(())
    }
}

/// Draws windows, one below the other, with what the picture is of.
pub(super) fn draw(subject: &str, windows: &[Window]) -> String {
    let width = windows.iter().map(Window::width).fold(0.0, f64::max);
    let gaps = lengths(windows.len().saturating_sub(1), GAP);
    let height = windows.iter().map(Window::height).sum::<f64>() + gaps;
    let mut svg = format!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.1} {height}" width="{width:.1}" height="{height}" role="img">
<title>{subject}</title>
<desc>Made by `cargo xtask session` from terminals in which the program ran.</desc>
<g {FONT} fill="{FOREGROUND}" xml:space="preserve">
"#
    );
    let mut top = 0.0;
    for window in windows {
        // Writing to a String does not fail.
        let _ = window.draw(&mut svg, top, width);
        top += window.height() + GAP;
    }
    svg.push_str("</g>\n</svg>\n");
    svg
}

/// The sum of `count` equal lengths.
fn lengths(count: usize, length: f64) -> f64 {
    u16::try_from(count).map_or(f64::MAX, f64::from) * length
}

/// Adjacent cells of the same style.
#[derive(Debug, PartialEq)]
struct Run {
    column: u16,
    columns: u16,
    text: String,
    style: Style,
}

#[derive(Debug, PartialEq)]
struct Style {
    colour: String,
    bold: bool,
}

impl Style {
    fn of(cell: &Cell) -> Self {
        let colour = match cell.fgcolor() {
            Color::Default if cell.inverse() => BACKGROUND.to_owned(),
            other => colour(other),
        };
        Self {
            colour,
            bold: cell.bold(),
        }
    }
}

impl Run {
    fn draw(&self, svg: &mut String, y: f64) -> fmt::Result {
        write!(
            svg,
            r#"<text x="{x:.1}" y="{y}" textLength="{length:.1}" lengthAdjust="spacingAndGlyphs""#,
            x = PADDING + f64::from(self.column) * COLUMN,
            length = f64::from(self.columns) * COLUMN,
        )?;
        if self.style.colour != FOREGROUND {
            write!(svg, r#" fill="{}""#, self.style.colour)?;
        }
        if self.style.bold {
            svg.push_str(r#" font-weight="bold""#);
        }
        writeln!(svg, ">{}</text>", escape(&self.text))
    }
}

/// The stretches of a line in inverse video: the first column, and how many there are.
fn inverse(screen: &Screen, row: u16) -> Vec<(u16, u16)> {
    let mut stretches: Vec<(u16, u16)> = Vec::new();
    for column in 0..screen.size().1 {
        if !screen.cell(row, column).is_some_and(Cell::inverse) {
            continue;
        }
        match stretches.last_mut() {
            Some((first, columns)) if *first + *columns == column => *columns += 1,
            _ => stretches.push((column, 1)),
        }
    }
    stretches
}

/// The runs of a line, without leading and trailing blanks. Two blanks end a run: a browser may draw them as one.
fn runs(screen: &Screen, row: u16) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for column in 0..screen.size().1 {
        let Some(cell) = screen.cell(row, column) else {
            continue;
        };
        // The second half of a wide character belongs to the first.
        let text = if cell.is_wide_continuation() {
            ""
        } else if cell.has_contents() {
            cell.contents()
        } else {
            " "
        };
        let style = Style::of(cell);
        match runs.last_mut() {
            Some(run) if run.style == style && !run.text.ends_with("  ") => {
                run.text.push_str(text);
                run.columns += 1;
            }
            _ => runs.push(Run {
                column,
                columns: 1,
                text: text.to_owned(),
                style,
            }),
        }
    }
    runs.into_iter().filter_map(trimmed).collect()
}

/// A run without leading and trailing blanks; `None` if it is blank.
fn trimmed(mut run: Run) -> Option<Run> {
    let blanks = |text: &str, rest: &str| u16::try_from(text.len() - rest.len()).ok();
    let rest = run.text.trim_end_matches(' ');
    run.columns -= blanks(&run.text, rest)?;
    let text = rest.trim_start_matches(' ');
    let before = blanks(rest, text)?;
    run.column += before;
    run.columns -= before;
    run.text = text.to_owned();
    (!run.text.is_empty()).then_some(run)
}

fn colour(colour: Color) -> String {
    match colour {
        Color::Default => FOREGROUND.to_owned(),
        Color::Rgb(red, green, blue) => format!("#{red:02x}{green:02x}{blue:02x}"),
        Color::Idx(index @ 0..16) => COLOURS[usize::from(index)].to_owned(),
        Color::Idx(index @ 16..232) => {
            let level = |digit: u8| if digit == 0 { 0 } else { 55 + 40 * digit };
            let cube = index - 16;
            let (red, green, blue) = (cube / 36, cube / 6 % 6, cube % 6);
            format!("#{:02x}{:02x}{:02x}", level(red), level(green), level(blue))
        }
        Color::Idx(index) => {
            let level = 8 + 10 * (index - 232);
            format!("#{level:02x}{level:02x}{level:02x}")
        }
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use vt100::Parser;

    use super::*;

    fn screen(bytes: &str) -> Parser {
        let mut parser = Parser::new(10, 40, 0);
        parser.process(bytes.as_bytes());
        parser
    }

    fn run(column: u16, text: &str, colour: &str, bold: bool) -> Run {
        Run {
            column,
            columns: u16::try_from(text.chars().count()).unwrap(),
            text: text.to_owned(),
            style: Style {
                colour: colour.to_owned(),
                bold,
            },
        }
    }

    #[test]
    fn a_line_is_cut_where_its_look_changes_and_at_blanks_and_all_keeps_its_columns() {
        let parser = screen("\x1b[1;32mroot#\x1b[0m  a b   c\r\n    c");
        let first = runs(parser.screen(), 0);
        let prompt = run(0, "root#", COLOURS[2], true);
        let others = [
            run(7, "a b", FOREGROUND, false),
            run(13, "c", FOREGROUND, false),
        ];
        assert_eq!(first[0], prompt);
        assert_eq!(first[1..], others);
        assert_eq!(runs(parser.screen(), 1), [run(4, "c", FOREGROUND, false)]);
        assert_eq!(runs(parser.screen(), 2), []);
    }

    #[test]
    fn inverse_video_has_a_background_and_dark_text() {
        let parser = screen("a \x1b[7mb  c\x1b[0m d");
        assert_eq!(inverse(parser.screen(), 0), [(2, 4)]);
        let row = runs(parser.screen(), 0);
        let looks: Vec<_> = row
            .iter()
            .map(|run| (run.text.as_str(), run.style.colour.as_str()))
            .collect();
        let expected = [
            ("a", FOREGROUND),
            ("b", BACKGROUND),
            ("c", BACKGROUND),
            ("d", FOREGROUND),
        ];
        assert_eq!(looks, expected);
        let svg = draw("a line", &[Window::new("x", parser.screen())]);
        let rectangle = format!(
            "width=\"{:.1}\" height=\"{LINE}\" fill=\"{FOREGROUND}\"",
            4.0 * COLUMN
        );
        assert!(svg.contains(&rectangle), "{svg}");
    }

    #[test]
    fn a_wide_character_takes_two_columns() {
        let parser = screen("漢x");
        let run = &runs(parser.screen(), 0)[0];
        assert_eq!((run.text.as_str(), run.columns), ("漢x", 3));
    }

    #[test]
    fn every_colour_of_a_terminal_has_one() {
        assert_eq!(colour(Color::Idx(1)), COLOURS[1]);
        assert_eq!(colour(Color::Idx(16)), "#000000");
        assert_eq!(colour(Color::Idx(196)), "#ff0000");
        assert_eq!(colour(Color::Idx(231)), "#ffffff");
        assert_eq!(colour(Color::Idx(255)), "#eeeeee");
        assert_eq!(colour(Color::Rgb(1, 2, 255)), "#0102ff");
    }

    #[test]
    fn a_line_that_the_terminal_wraps_is_two() {
        let parser = screen(&format!("{}\r\nlast", "x".repeat(41)));
        assert_eq!(Window::new("wrapped", parser.screen()).lines(), 3);
    }

    #[test]
    fn a_picture_has_the_text_escaped_and_ends_with_the_last_line() {
        let (above, below) = (screen("a <b> & c\r\n\r\nlast\r\n"), screen("x"));
        let windows = [
            Window::new("<title>", above.screen()),
            Window::new("below", below.screen()),
        ];
        let svg = draw("two windows", &windows);
        assert!(svg.contains(">a &lt;b&gt; &amp; c</text>"), "{svg}");
        assert!(svg.contains(">&lt;title&gt;</text>"), "{svg}");
        assert_eq!(svg.matches("<text ").count(), 5, "{svg}");
        let height = 2.0 * (BAR + PADDING) + 4.0 * LINE + GAP;
        assert!(svg.contains(&format!(" height=\"{height}\" role")), "{svg}");
    }
}

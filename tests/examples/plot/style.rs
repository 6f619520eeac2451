//! Colours, letters and numbers.

use anyhow::Result;
use plotters::{
    prelude::*,
    style::text_anchor::{HPos, Pos, VPos},
};

use super::Area;

pub(super) const INK: RGBColor = RGBColor(0x33, 0x33, 0x33);
pub(super) const FAINT: RGBColor = RGBColor(0xdd, 0xdd, 0xdd);
/// qfence itself.
pub(super) const ACCENT: RGBColor = RGBColor(0x1f, 0x6f, 0xb4);
/// Whatever else it is compared with.
pub(super) const OTHER: RGBColor = RGBColor(0xa8, 0xb4, 0xbf);
/// One after the other; they differ in a print without colours too.
pub(super) const CURVES: [RGBColor; 4] = [
    ACCENT,
    RGBColor(0xe0, 0x8a, 0x1e),
    RGBColor(0x2f, 0x8f, 0x5b),
    RGBColor(0x8a, 0x4f, 0x9e),
];

const SIZE: u32 = 13;

fn write(
    area: &Area<'_>,
    text: &str,
    at: (i32, i32),
    font: FontDesc<'_>,
    colour: &RGBColor,
    side: HPos,
) -> Result<()> {
    let style = font.color(colour).pos(Pos::new(side, VPos::Center));
    area.draw(&Text::new(text, at, style))?;
    Ok(())
}

pub(super) fn left(area: &Area<'_>, text: &str, at: (i32, i32), colour: &RGBColor) -> Result<()> {
    write(
        area,
        text,
        at,
        ("sans-serif", SIZE).into_font(),
        colour,
        HPos::Left,
    )
}

pub(super) fn right(area: &Area<'_>, text: &str, at: (i32, i32)) -> Result<()> {
    write(
        area,
        text,
        at,
        ("sans-serif", SIZE).into_font(),
        &INK,
        HPos::Right,
    )
}

pub(super) fn centred(
    area: &Area<'_>,
    text: &str,
    at: (i32, i32),
    colour: &RGBColor,
) -> Result<()> {
    write(
        area,
        text,
        at,
        ("sans-serif", SIZE - 1).into_font(),
        colour,
        HPos::Center,
    )
}

pub(super) fn bold(area: &Area<'_>, text: &str, at: (i32, i32)) -> Result<()> {
    let font = ("sans-serif", SIZE).into_font().style(FontStyle::Bold);
    write(area, text, at, font, &INK, HPos::Left)
}

pub(super) fn title(area: &Area<'_>, text: &str, at: (i32, i32)) -> Result<()> {
    let font = ("sans-serif", SIZE + 6).into_font().style(FontStyle::Bold);
    write(area, text, at, font, &INK, HPos::Left)
}

/// A number with three digits that tell.
pub(super) fn figure(number: f64) -> String {
    match number.abs() {
        size if size >= 100.0 => format!("{number:.0}"),
        size if size >= 10.0 => format!("{number:.1}"),
        _ => format!("{number:.2}"),
    }
}

/// A ratio, to a percent where that is something.
pub(super) fn ratio(number: f64) -> String {
    if number < 0.1 {
        format!("× {number:.4}")
    } else {
        format!("× {}", figure(number))
    }
}

/// A round number on an axis.
pub(super) fn short(number: f64) -> String {
    match number.abs() {
        size if size >= 1e6 => format!("{}M", number / 1e6),
        size if size >= 1e4 => format!("{}k", number / 1e3),
        _ => format!("{number}"),
    }
}

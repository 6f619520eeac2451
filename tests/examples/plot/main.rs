//! `plot SVG [JSON ABOUT]…`: draws the reports of all benchmarks on one sheet, each with what it is about.

mod bars;
mod curves;
mod panels;
mod style;

use std::{borrow::Cow, env, ffi::OsString, fs, path::Path};

use anyhow::{Context as _, Result, bail};
use panels::Panel;
use plotters::{coord::Shift, prelude::*};
use tests::bench::Report;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

const WIDTH: i32 = 1000;
/// A benchmark's title, and what it ran on.
const TITLE: i32 = 64;
/// A line of what is missing or to be known.
const LINE: i32 = 18;
/// Below those.
const GAP: i32 = 8;
/// How many letters are in one, at most.
const LETTERS: usize = 145;
/// Below a benchmark.
const MARGIN: i32 = 24;

fn main() -> Result<()> {
    let arguments: Vec<OsString> = env::args_os().skip(1).collect();
    let (file, of) = arguments.split_first().context("plot SVG [JSON ABOUT]…")?;
    let mut reports = Vec::new();
    for pair in of.chunks(2) {
        let [json, about] = pair else {
            bail!("each report takes what it is about");
        };
        reports.push((about.to_string_lossy(), read(Path::new(json))?));
    }
    plot(&reports, Path::new(file))
}

fn read(path: &Path) -> Result<Report> {
    let text = fs::read(path).with_context(|| format!("read {}", path.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("read {}", path.display()))
}

/// Draws reports, one below the other, each with what it is about.
fn plot(reports: &[(Cow<'_, str>, Report)], file: &Path) -> Result<()> {
    let sections: Vec<_> = reports
        .iter()
        .map(|(about, report)| Section::new(about, report))
        .collect();
    let height: i32 = sections.iter().map(Section::height).sum();
    let size = (WIDTH.unsigned_abs(), height.max(1).unsigned_abs());
    let area = SVGBackend::new(file, size).into_drawing_area();
    area.fill(&WHITE)?;
    let mut top = 0;
    for section in &sections {
        section.draw(&area, top)?;
        top += section.height();
    }
    area.present()
        .with_context(|| format!("write {}", file.display()))
}

/// One benchmark.
struct Section {
    title: String,
    machine: String,
    lines: Vec<String>,
    panel: Panel,
}

impl Section {
    fn new(about: &str, report: &Report) -> Self {
        let machine = &report.machine;
        let missing = report.missing.iter().map(|missing| {
            format!(
                "not measured: {}, {}: {}",
                missing.group, missing.variant, missing.why
            )
        });
        let notes = report.notes.iter().map(|note| format!("note: {note}"));
        Self {
            title: format!("{}: {about}", report.bench),
            machine: format!(
                "Linux {}, {} x {}{}",
                machine.kernel,
                machine.processors,
                machine.processor,
                if report.quick { ", a first look" } else { "" }
            ),
            lines: missing.chain(notes).flat_map(|text| wrap(&text)).collect(),
            panel: panels::panel(report),
        }
    }

    fn height(&self) -> i32 {
        let count = |number: usize| i32::try_from(number).unwrap_or(i32::MAX);
        TITLE
            + count(self.lines.len()) * LINE
            + GAP
            + bars::height(&self.panel.comparisons)
            + count(self.panel.charts.len().div_ceil(2)) * curves::HEIGHT
            + MARGIN
    }

    fn draw(&self, area: &Area<'_>, top: i32) -> Result<()> {
        style::title(area, &self.title, (20, top + 22))?;
        style::left(area, &self.machine, (20, top + 44), &style::INK)?;
        let mut y = top + TITLE;
        for line in &self.lines {
            style::left(area, line, (20, y + LINE / 2), &style::INK)?;
            y += LINE;
        }
        y += GAP;
        if !self.panel.comparisons.is_empty() {
            bars::draw(area, y, &self.panel.comparisons)?;
            y += bars::height(&self.panel.comparisons);
        }
        for pair in self.panel.charts.chunks(2) {
            for (chart, left) in pair.iter().zip([0, WIDTH / 2]) {
                let part = area.clone().shrink((left, y), (WIDTH / 2, curves::HEIGHT));
                curves::draw(&part, chart)?;
            }
            y += curves::HEIGHT;
        }
        Ok(())
    }
}

/// Lines that fit on the sheet.
fn wrap(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.len() + 1 + word.len() <= LETTERS => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

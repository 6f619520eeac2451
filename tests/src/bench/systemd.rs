//! Compares qfence with systemd's `IPAddressDeny=`: makes a report of the lines that a script prints in the Debian 12
//! machine.

use anyhow::{Context as _, Result, bail, ensure};
use serde::Deserialize;

use super::{Machine, Report, Series};
use crate::probe::{Ending, Load, ProbeResult};

/// The group of a report without figures.
const EVERYTHING: &str = "connect, sendto and refusals beside IPAddressDeny=";

/// A line of `xtask/src/vm/beside-systemd.sh`, or of `cargo xtask bench`, which runs it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    /// The reason for which there are no figures.
    Missing(String),
    /// The machine on which the script runs.
    Machine(Machine),
    /// The version of its systemd.
    Systemd(String),
    /// The time limit of an attempt, in milliseconds.
    LimitMs(u32),
    /// The output of the probe in one of the variants.
    Sample { variant: Variant, said: Said },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Variant {
    Unfenced,
    Qfence,
    /// `IPAddressDeny=localhost`
    Localhost,
    /// `IPAddressDeny=` with each address of the host.
    Host,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Said {
    Load(Load),
    Attempt(ProbeResult),
}

/// Adds the script's lines to a report.
///
/// # Errors
/// If a line cannot be parsed, an attempt has an unexpected ending, or there are no figures and no line with the
/// reason.
pub fn tabulate<'a>(lines: impl Iterator<Item = &'a str>, report: &mut Report) -> Result<()> {
    let mut limit = None;
    let mut all: Vec<Series> = Vec::new();
    for line in lines {
        let line = serde_json::from_str(line)
            .with_context(|| format!("the script prints in the machine: {line}"))?;
        match &line {
            Line::Missing(why) => report.miss(EVERYTHING, "qfence and systemd", why),
            Line::Machine(machine) => report.machine = machine.clone(),
            Line::Systemd(version) => report.notes.push(format!(
                "under emulation, {version}: a factor of two can be told from these figures, a tenth cannot"
            )),
            Line::LimitMs(ms) => limit = Some(ms / 1000),
            Line::Sample { variant, said } => {
                let limit = limit.context("the limit comes first")?;
                let (group, unit, variant, figure) = sample(*variant, said, limit)?;
                let at = all.iter().position(|series| series.group() == group);
                let series = match at {
                    Some(at) => &mut all[at],
                    None => all.push_mut(Series::new(group, unit)),
                };
                series.push(&variant, figure);
            }
        }
    }
    ensure!(
        !all.is_empty() || !report.missing.is_empty(),
        "the script prints no figures in the machine"
    );
    all.iter().for_each(|series| report.add(series));
    Ok(())
}

/// Returns the group, unit and variant of a sample, and its figure. An unexpected ending of the attempt is an error,
/// except for systemd's variants, whose behaviour is only observed.
fn sample(
    variant: Variant,
    said: &Said,
    limit_s: u32,
) -> Result<(String, &'static str, String, f64)> {
    let name = match variant {
        Variant::Unfenced => "unfenced",
        Variant::Qfence => "qfence",
        Variant::Localhost => "IPAddressDeny=localhost",
        Variant::Host => "IPAddressDeny= all of the host's",
    };
    match said {
        Said::Load(load) => {
            let group = match load.load.split('/').next() {
                Some("connect-udp") => "connect, UDP, IPv4, allowed, emulated",
                Some("send-udp") => "sendto, UDP, IPv4, allowed, emulated",
                _ => bail!("an odd load: {load:?}"),
            };
            Ok((
                group.to_owned(),
                "ns",
                name.to_owned(),
                1e9 / load.a_second(),
            ))
        }
        Said::Attempt(outcome) => {
            let host = outcome.probe.split('/').nth(1).unwrap_or_default();
            let as_it_should = match variant {
                Variant::Unfenced => outcome.is_reached(),
                Variant::Qfence => outcome.failed_with("ECONNREFUSED"),
                Variant::Localhost | Variant::Host => true,
            };
            ensure!(as_it_should, "{variant:?}: {outcome:?}");
            let ending = match (outcome.ending, &outcome.errno) {
                (Ending::Reached, _) => "reached",
                (Ending::Timeout, _) => "hangs",
                (_, Some(error)) => error,
                _ => bail!("{outcome:?}"),
            };
            Ok((
                format!("connect, TCP, to the host's {host}, given up after {limit_s} s"),
                "ms",
                format!("{name}: {ending}"),
                outcome.ms,
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(lines: &[&str]) -> Result<Report> {
        let mut report = Report::new("systemd", false)?;
        tabulate(lines.iter().copied(), &mut report)?;
        Ok(report)
    }

    const LIMIT: &str = r#"{"limit_ms":3000}"#;

    #[test]
    fn samples_become_rows_by_what_was_done_and_how_it_ended() {
        let report = read(&[
            r#"{"machine":{"kernel":"6.1.0","processors":2,"processor":"QEMU"}}"#,
            r#"{"systemd":"systemd 252"}"#,
            LIMIT,
            r#"{"sample":{"variant":"unfenced","said":{"load":"send-udp/192.0.2.1/9","count":1000,"ms":1.0}}}"#,
            r#"{"sample":{"variant":"qfence","said":{"load":"send-udp/192.0.2.1/9","count":500,"ms":1.0}}}"#,
            r#"{"sample":{"variant":"host","said":{"attempt":"tcp/127.0.0.1/80","ending":"timeout","step":"connect","errno":null,"ms":3000.5,"reply":null}}}"#,
        ])
        .unwrap();
        assert_eq!(report.machine.kernel, "6.1.0");
        let [unfenced, qfence, host] = &report.rows[..] else {
            panic!("three rows");
        };
        assert_eq!((unfenced.median, unfenced.ratio), (1000.0, None));
        assert_eq!((qfence.median, qfence.ratio), (2000.0, Some(2.0)));
        assert_eq!(host.variant, "IPAddressDeny= all of the host's: hangs");
        assert_eq!(
            host.group,
            "connect, TCP, to the host's 127.0.0.1, given up after 3 s"
        );
    }

    #[test]
    fn a_fence_that_lets_through_is_an_error() {
        let reached = r#"{"sample":{"variant":"qfence","said":{"attempt":"tcp/127.0.0.1/80","ending":"reached","step":null,"errno":null,"ms":1.0,"reply":"hello"}}}"#;
        assert!(read(&[LIMIT, reached]).is_err());
        let outside = reached.replace("qfence", "unfenced");
        assert!(read(&[LIMIT, &outside]).is_ok());
    }

    #[test]
    fn without_figures_the_report_has_the_reason() {
        let report = read(&[r#"{"missing":"there is no machine"}"#]).unwrap();
        assert_eq!(report.missing[0].why, "there is no machine");
        assert!(report.rows.is_empty());
    }

    #[test]
    fn a_silent_script_is_an_error() {
        assert!(read(&[LIMIT]).is_err());
    }
}

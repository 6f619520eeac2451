//! The table of frames of `verify`: it has every row of the matrix on both devices, and the layers that hold each are those
//! that the matrix names.

use std::{collections::BTreeMap, process::Command};

use anyhow::{Context as _, Result, ensure};
use nix::mount::{MsFlags, mount};
use qfence_user::verify::devices::{
    row::{Fenced, Layer, Open, Said},
    scene::has_filters,
    table,
};
use serde::Deserialize;
use tests::{
    fence::qfence,
    namespace::Namespace,
    run::to_end,
    tap::{Header, Kind, Link},
};

use super::{Report, verify};

/// The table.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Devices {
    rows: Vec<Row>,
    untried: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    frame: String,
    device: String,
    without: String,
    with: String,
    layers: Vec<String>,
    answer: Option<String>,
    verdict: String,
}

/// Checks the table of a report.
pub(super) fn check(devices: &Devices) -> Result<()> {
    ensure!(devices.untried.is_none(), "{devices:?}");
    let found: BTreeMap<_, _> = devices
        .rows
        .iter()
        .map(|row| ((row.device.as_str(), row.frame.as_str()), row))
        .collect();
    let mut expected = 0;
    let mut wrong = Vec::new();
    for (link, header) in [
        (Link::Routed, Header::None),
        (Link::Bridged, Header::Virtio),
    ] {
        let rows = table::rows(Kind {
            link,
            header,
            filters_bridge: link == Link::Bridged && has_filters(),
        });
        expected += rows.len();
        for row in rows {
            let name = row.name.as_str();
            let found = found.get(&(link.name(), name));
            let found = found.with_context(|| format!("{name} is not in the table"))?;
            let layers: &[&str] = match (row.open, row.layer) {
                (_, Layer::Together) => &[],
                (Open::Sent, _) | (_, Layer::First) => &["frame"],
                (_, Layer::Second) => &["local_in"],
                (_, Layer::Both) => &["frame", "local_in"],
            };
            let verdict = match (row.fenced, row.open) {
                (Fenced::Through, _) => "works",
                (Fenced::Unanswered | Fenced::NotForTheHost, _) => "open",
                // The bridge may have it.
                (Fenced::Refused(_), Open::Sent) if found.without == "nothing" => "untried",
                (Fenced::Refused(_), _) => "stopped",
            };
            let is_answered = match row.fenced {
                Fenced::Refused(Said::Reset) => found.answer.as_deref() == Some("reset"),
                Fenced::Refused(Said::Prohibited) => found.answer.as_deref() == Some("prohibited"),
                Fenced::Refused(Said::Nothing) => found.answer.is_none(),
                _ => true,
            };
            let is_refused = matches!(row.fenced, Fenced::Refused(_));
            let is_right = found.verdict == verdict
                && is_answered
                && (!is_refused || found.layers == layers)
                && (!is_refused || found.with == "nothing")
                && (verdict != "stopped" || found.without != "nothing");
            if !is_right {
                wrong.push(format!("not {verdict} by {layers:?}: {found:?}"));
            }
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    ensure!(devices.rows.len() == expected, "{}", devices.rows.len());
    Ok(())
}

#[test]
fn each_frame_is_held_by_the_layers_that_the_matrix_names() -> Result<()> {
    let (ended, report) = verify(Command::new(qfence()?), &["--devices"])?;
    check(&report.devices)?;
    assert!(report.holds, "{report:#?}");
    assert_eq!((ended.code(), ended.stderr.as_str()), (Some(0), ""));
    assert!(report.attempts.is_empty() && report.must_work.is_empty());
    Ok(())
}

/// A host without the device of all tap devices.
fn without_tun() -> Result<Namespace> {
    const NONE: Option<&str> = None;
    Namespace::with_mounts(|| {
        mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE)?;
        mount(
            Some("tmpfs"),
            "/dev/net",
            Some("tmpfs"),
            MsFlags::empty(),
            NONE,
        )?;
        Ok(())
    })
}

#[test]
fn what_cannot_be_tried_is_said() -> Result<()> {
    let host = without_tun()?;
    let mut command = host.command(qfence()?);
    command.args(["verify", "--devices"]);
    let ended = to_end(command)?;
    let why =
        "no frame of a guest with a tap device can be tried on this host: cannot open /dev/net/tun";
    ensure!(
        ended.code() == Some(125) && ended.stdout.is_empty() && ended.stderr.contains(why),
        "{ended:?}"
    );
    let (ended, report): (_, Report) = verify(host.command(qfence()?), &[])?;
    let untried = report.devices.untried.unwrap_or_default();
    ensure!(
        report.holds && report.devices.rows.is_empty() && untried.contains("/dev/net/tun"),
        "{untried}: {ended:?}"
    );
    Ok(())
}

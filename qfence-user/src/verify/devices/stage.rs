//! Tries every row on a routed device and on one in a bridge: without a fence, in a fence, and with either layer taken away.

use std::{fs::File, os::fd::AsFd as _};

use anyhow::{Context as _, Result};
use nix::sched::{CloneFlags, setns};
use qfence_common::Hook;
use tokio::task::yield_now;

use super::{
    bed::{Bed, Outcome},
    judge::{Seen, Trials},
    report::{self, Devices},
    row::{Fenced, Layer, Row},
    scene::{GUEST_MAC, Kind, Link, Scene, TAP, has_filters},
    table, tools,
};
use crate::{
    base::paths::Paths,
    kernel::{device, local_in},
    probe::frame::{Header, tap::TUN},
    verify::{judge::Verdict, netns::Netns, throwaway::ThrowAway},
};

/// Tries all rows. Afterwards this thread is in the network namespace of the last host.
///
/// # Errors
/// If a fence cannot be made, or frames cannot be sent. If this host lacks something that the private network is made with, or
/// cannot fence devices, that is no error, but in the result.
pub async fn run(paths: &Paths) -> Result<Devices> {
    let mut devices = Devices::default();
    if let Err(error) = has_all() {
        devices.untried = Some(format!("{error:#}"));
        return Ok(devices);
    }
    for kind in kinds() {
        match lay_out(kind) {
            Ok(bed) => devices.rows.extend(try_all(paths, bed).await?),
            Err(error) => {
                devices.rows.clear();
                devices.untried = Some(format!("{error:#}"));
                return Ok(devices);
            }
        }
    }
    Ok(devices)
}

/// The two devices: a plain one with addresses of its own, and one with offloads in a bridge, which netfilter sees if it can.
fn kinds() -> [Kind; 2] {
    [
        Kind {
            link: Link::Routed,
            header: Header::None,
            filters_bridge: false,
        },
        Kind {
            link: Link::Bridged,
            header: Header::Virtio,
            filters_bridge: has_filters(),
        },
    ]
}

/// Checks that this host can fence devices, and has what the private network is made with.
fn has_all() -> Result<()> {
    File::options()
        .read(true)
        .write(true)
        .open(TUN)
        .with_context(|| format!("cannot open {TUN}, by which tap devices are made"))?;
    for (command, package) in [
        ("ip", "iproute2"),
        ("bridge", "iproute2"),
        ("nft", "nftables"),
    ] {
        tools::find(command, package)?;
    }
    device::trial::attempt()
        .map_err(|error| anyhow::anyhow!("{}", error.in_brief()))
        .context("network devices cannot be fenced")?;
    local_in::attempt().context("network devices cannot be fenced")?;
    Ok(())
}

/// Makes a private host and its networks, and moves this thread there.
fn lay_out(kind: Kind) -> Result<Bed<Netns>> {
    let netns = [Netns::new()?, Netns::new()?, Netns::new()?];
    let scene = Scene::lay_out(kind, netns).context("cannot lay out a private network")?;
    setns(scene.host.as_fd(), CloneFlags::CLONE_NEWNET)
        .context("cannot enter a network namespace")?;
    Bed::new(scene).context("cannot lay out a private network")
}

async fn try_all(paths: &Paths, mut bed: Bed<Netns>) -> Result<Vec<report::Row>> {
    let rows = table::rows(bed.scene.kind);
    let mut controls = Vec::new();
    for row in &rows {
        controls.push(seen(&mut bed, row, |outcome| row.shows(outcome)).await?);
    }
    let mut fence = ThrowAway::of_device(paths, TAP, GUEST_MAC).await?;
    let mut fenced = Vec::new();
    for row in &rows {
        fence.beat()?;
        let seen = seen(&mut bed, row, |outcome| row.is_held(outcome)).await?;
        let recorded = if fence.has_refused()? {
            Some(Hook::Frame)
        } else if matches!(row.fenced, Fenced::Refused(_)) && fence.has_dropped()? {
            Some(Hook::LocalIn)
        } else {
            None
        };
        fenced.push((seen, recorded));
    }
    fence.take_first_layer_away()?;
    let without_frame = partly(&mut fence, &mut bed, &rows, Layer::First).await?;
    fence.put_first_layer_back().await?;
    fence.take_second_layer_away()?;
    let without_local_in = partly(&mut fence, &mut bed, &rows, Layer::Second).await?;
    fence.remove()?;

    let partly = without_frame.into_iter().zip(without_local_in);
    let all = controls.into_iter().zip(fenced).zip(partly);
    let link = bed.scene.kind.link;
    let sees_tags = local_in::Method::of_this_kernel() == local_in::Method::Links;
    Ok(rows
        .iter()
        .zip(all)
        .map(
            |(row, ((without, (with, recorded)), (without_frame, without_local_in)))| {
                let trials = Trials {
                    without,
                    with,
                    recorded,
                    without_frame,
                    without_local_in,
                };
                let verdict = if row.is_by_tag_alone && !sees_tags {
                    Verdict::Open
                } else {
                    trials.verdict(row.fenced)
                };
                report::Row::new(row, link, &trials, verdict)
            },
        )
        .collect())
}

/// Tries the rows that a fence refuses, in a fence that lacks a layer.
async fn partly(
    fence: &mut ThrowAway,
    bed: &mut Bed<Netns>,
    rows: &[Row],
    taken: Layer,
) -> Result<Vec<Option<Seen>>> {
    let mut all = Vec::new();
    for row in rows {
        if !matches!(row.fenced, Fenced::Refused(_)) {
            all.push(None);
            continue;
        }
        fence.beat()?;
        // What the other layer is to hold is not waited for.
        let arrives = row.layer == taken || row.layer == Layer::Together;
        let seen = seen(bed, row, |outcome| !arrives || row.shows(outcome)).await?;
        all.push(Some(seen));
    }
    Ok(all)
}

async fn seen(
    bed: &mut Bed<Netns>,
    row: &Row,
    is_expected: impl Fn(&Outcome) -> bool,
) -> Result<Seen> {
    // Signals are received in between.
    yield_now().await;
    let outcome = bed.send(row, is_expected)?;
    Ok(Seen::new(row, &outcome))
}

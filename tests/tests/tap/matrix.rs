//! The matrix of frames: each arrives where there is no fence, and nothing arrives in a fence that is no exception.

use anyhow::{Result, ensure};
use tests::tap::{
    Header::{self, None, Virtio},
    Kind,
    Link::{self, Bridged, Routed},
    scene::bed,
};

use super::{bed::fence, table};

pub(super) const fn kind(link: Link, header: Header, filters_bridge: bool) -> Kind {
    Kind {
        link,
        header,
        filters_bridge,
    }
}

/// Tries all rows without a fence and with one.
fn prove(kind: Kind) -> Result<()> {
    let mut bed = bed(kind)?;
    let rows = table::rows(kind);
    let mut wrong = bed.control(&rows)?;
    let before = bed.scene.arrivals().len();
    ensure!(before > 0, "the control reaches no service");
    let (_fence, shell) = fence(&bed.scene, "frames", &[])?;
    wrong.extend(bed.fenced(&rows)?);
    let after = bed.scene.arrivals();
    if after.len() > before {
        wrong.push(format!("services: {:?}", &after[before..]));
    }
    ensure!(
        wrong.is_empty(),
        "{kind:?}, {} of {} rows:\n{}\n{}",
        wrong.len(),
        rows.len(),
        wrong.join("\n"),
        shell.stderr()
    );
    Ok(())
}

#[test]
fn nothing_arrives_by_a_routed_device() -> Result<()> {
    prove(kind(Routed, None, false))
}

#[test]
fn nothing_arrives_by_a_routed_device_with_offloads() -> Result<()> {
    prove(kind(Routed, Virtio, false))
}

#[test]
fn nothing_arrives_by_a_bridge() -> Result<()> {
    prove(kind(Bridged, None, false))
}

#[test]
fn nothing_arrives_by_a_bridge_with_offloads() -> Result<()> {
    prove(kind(Bridged, Virtio, false))
}

#[test]
fn nothing_arrives_by_a_filtered_bridge() -> Result<()> {
    prove(kind(Bridged, None, true))
}

#[test]
fn nothing_arrives_by_a_filtered_bridge_with_offloads() -> Result<()> {
    prove(kind(Bridged, Virtio, true))
}

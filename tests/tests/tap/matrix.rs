//! The matrix of frames: each arrives where there is no fence, and nothing arrives in a fence that is no exception.

use anyhow::{Result, ensure};
use tests::tap::{
    Header::{self, None, Virtio},
    Kind,
    Link::{self, Bridged, Routed},
};

use super::{bed::Bed, table};

const fn kind(link: Link, header: Header, filters_bridge: bool) -> Kind {
    Kind {
        link,
        header,
        filters_bridge,
    }
}

fn control(kind: Kind) -> Result<()> {
    let mut bed = Bed::new(kind)?;
    let wrong = bed.control(&table::rows(kind))?;
    ensure!(wrong.is_empty(), "{kind:?}:\n{}", wrong.join("\n"));
    Ok(())
}

#[test]
fn everything_arrives_by_a_routed_device_without_a_fence() -> Result<()> {
    control(kind(Routed, None, false))
}

#[test]
fn everything_arrives_by_a_routed_device_with_offloads_without_a_fence() -> Result<()> {
    control(kind(Routed, Virtio, false))
}

#[test]
fn everything_arrives_by_a_bridge_without_a_fence() -> Result<()> {
    control(kind(Bridged, None, false))
}

#[test]
fn everything_arrives_by_a_filtered_bridge_with_offloads_without_a_fence() -> Result<()> {
    control(kind(Bridged, Virtio, true))
}

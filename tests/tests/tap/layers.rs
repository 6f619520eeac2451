//! Each layer is needed: with one of them taken away from a fence, named rows arrive that both together hold.

use std::{
    fs,
    net::{SocketAddr, TcpStream},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use nix::net::if_::if_nametoindex;
use tests::{
    fence::Fence,
    run::{to_end, without_sudo},
    shell::Shell,
    tap::{
        Header, Kind,
        Link::{Bridged, Routed},
        Scene,
        scene::{
            self, GATEWAY_MAC, GATEWAY_V4, GUEST_MAC, GUEST_V4, NEIGHBOUR_MAC, PORT, SERVER_V4, TAP,
        },
        wire,
    },
};

use super::{
    bed::{Bed, fence},
    matrix::kind,
    row::{Fenced, Layer},
    table,
};

/// Where the links of the second layer are pinned, in a directory for each network namespace.
const SECOND: &str = "/sys/fs/bpf/qfence-local-in";

/// The pins of the links of a layer.
pub(super) fn pins(scene: &Scene, fence: &Fence, layer: Layer) -> Result<Vec<PathBuf>> {
    if layer == Layer::First {
        let index = scene.host.run(|| Ok(if_nametoindex(TAP)?))?;
        let pin = format!("/sys/fs/bpf/qfence/{}/frame-{index}", fence.name());
        return Ok(vec![pin.into()]);
    }
    let mut pins = Vec::new();
    let directory = second(scene)?;
    for entry in
        fs::read_dir(&directory).with_context(|| format!("list {}", directory.display()))?
    {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with("local_in") {
            pins.push(entry.path());
        }
    }
    Ok(pins)
}

/// The directory of the second layer of the host, whether or not it is there.
pub(super) fn second(scene: &Scene) -> Result<PathBuf> {
    let inode = fs::metadata(scene.host.path())?.ino();
    Ok(Path::new(SECOND).join(inode.to_string()))
}

/// Detaches the links of a layer.
pub(super) fn take_away(scene: &Scene, fence: &Fence, layer: Layer) -> Result<()> {
    let pins = pins(scene, fence, layer)?;
    let expected = if layer == Layer::First { 1 } else { 2 };
    ensure!(pins.len() == expected, "{layer:?}: {pins:?}");
    for pin in pins {
        let mut bpftool = Command::new("bpftool");
        bpftool.args(["link", "detach", "pinned"]).arg(pin);
        let ended = to_end(bpftool)?;
        ensure!(ended.code() == Some(0), "{ended:?}");
    }
    Ok(())
}

/// Takes a layer away. The rows that only this layer holds arrive; no other does.
fn without(kind: Kind, layer: Layer) -> Result<()> {
    let mut bed = scene::bed(kind)?;
    let (fence, shell) = fence(&bed.scene, "layers", &[])?;
    take_away_and_try(&mut bed, &fence, &shell, layer)
}

fn take_away_and_try(bed: &mut Bed, fence: &Fence, shell: &Shell, layer: Layer) -> Result<()> {
    let rows = table::rows(bed.scene.kind);
    let mut wrong = bed.fenced(&rows)?;
    ensure!(wrong.is_empty(), "with both: {}", wrong.join("\n"));
    // It would put things right.
    shell.kill_supervisor()?;
    take_away(&bed.scene, fence, layer)?;
    let mut fallen = 0;
    for row in &rows {
        // Whether the first layer knows a new address depends on the moment at which the supervisor ended.
        if matches!(row.fenced, Fenced::Through | Fenced::Unanswered) || row.address.is_some() {
            continue;
        }
        if row.layer == layer || row.layer == Layer::Together {
            let outcome = bed.send(row, |outcome| row.shows(outcome))?;
            if !row.shows(&outcome) {
                wrong.push(format!("{} holds without {layer:?}: {outcome}", row.name));
            }
            fallen += 1;
        } else if row.layer == Layer::Both {
            let outcome = bed.send(row, |_| true)?;
            if outcome.arrived.delivered > 0 {
                wrong.push(format!("{} is held by one layer only: {outcome}", row.name));
            }
        }
    }
    ensure!(fallen > 10, "{fallen} rows");
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

#[test]
fn without_the_first_layer_other_frames_than_ip_arrive_by_a_routed_device() -> Result<()> {
    without(kind(Routed, Header::None, false), Layer::First)
}

#[test]
fn without_the_first_layer_other_frames_than_ip_arrive_by_a_bridge() -> Result<()> {
    without(kind(Bridged, Header::Virtio, true), Layer::First)
}

#[test]
fn without_the_second_layer_what_is_translated_arrives_by_a_routed_device() -> Result<()> {
    without(kind(Routed, Header::Virtio, false), Layer::Second)
}

#[test]
fn without_the_second_layer_what_is_translated_arrives_by_a_bridge() -> Result<()> {
    without(kind(Bridged, Header::None, true), Layer::Second)
}

/// The guest chooses the address of its first frame. If it is somebody else's, the host hears that one as before.
#[test]
fn a_first_frame_with_the_address_of_another_does_not_cut_that_one_off() -> Result<()> {
    let bed = scene::bed(kind(Bridged, Header::None, false))?;
    let fence = Fence::new("learnt")?.with(&["--device", TAP]);
    let mut command = fence.command(&bed.scene.host, "sh");
    without_sudo(&mut command);
    let _shell = Shell::start(command)?;
    let reaches = || {
        bed.scene.neighbour.run(|| {
            let service = SocketAddr::new(GATEWAY_V4, PORT);
            Ok(TcpStream::connect_timeout(&service, Duration::from_secs(5)).is_ok())
        })
    };
    ensure!(reaches()?, "the neighbour reaches nobody");
    let asks = wire::ping(GUEST_V4, SERVER_V4, 7);
    bed.tap
        .send(&wire::packet(NEIGHBOUR_MAC, GATEWAY_MAC, &asks))?;
    // The supervisor looks each second.
    thread::sleep(Duration::from_secs(3));
    ensure!(reaches()?, "the host does not hear the neighbour any more");
    // It is the guest's address now: the first layer takes no other.
    bed.tap.send(&wire::packet(GUEST_MAC, GATEWAY_MAC, &asks))?;
    fence.await_refusal(|refusal| refusal.rule == "deny-mac")?;
    Ok(())
}

/// Both layers are links that are pinned, so they stay when the supervisor is killed.
#[test]
fn both_layers_stay_when_the_supervisor_is_killed() -> Result<()> {
    let kind = kind(Bridged, Header::None, false);
    let mut bed = scene::bed(kind)?;
    let rows = table::rows(kind);
    let (fence, shell) = fence(&bed.scene, "killed", &[])?;
    shell.kill_supervisor()?;
    for layer in [Layer::First, Layer::Second] {
        let pins = pins(&bed.scene, &fence, layer)?;
        ensure!(pins.iter().all(|pin| pin.exists()), "{pins:?}");
    }
    let wrong = bed.fenced(&rows)?;
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

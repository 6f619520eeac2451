//! The life of a fence with a device: what it leaves when it ends, and what is said when the device goes, comes back or
//! moves.

use anyhow::{Context as _, Result, ensure};
use tests::{
    fence::{Fence, qfence},
    namespace::Namespace,
    probe, remains,
    run::{to_end, wait_until, without_sudo},
    shell::Shell,
    tap::{
        Header, Link, Scene,
        foreign::{Foreign, Order},
        scene::{self, TAP, make_tap},
    },
};

use super::{
    bed::{GUEST_MAC, fence, named},
    layers::{pins, second, take_away},
    matrix::kind,
    row::Layer,
    table,
};

/// What `ps` says of a fence: its row, and what follows it.
fn ps(scene: &Scene, fence: &Fence) -> Result<String> {
    let mut command = scene.host.command(qfence()?);
    let table = probe::output(command.arg("ps"))?;
    ensure!(table.contains(fence.name()), "{table}");
    Ok(table)
}

/// Waits until `ps` shows a fence as unfenced, and says which device is the reason.
fn await_unfenced(scene: &Scene, fence: &Fence, shell: &Shell) -> Result<()> {
    let mut last = String::new();
    wait_until("ps shows it as UNFENCED", || {
        last = ps(scene, fence)?;
        Ok(last.contains("UNFENCED") && last.contains(TAP))
    })
    .with_context(|| format!("{last}\n{}", shell.stderr()))
}

/// What there is of links, tables, queueing disciplines and devices on the host.
fn inventory(scene: &Scene) -> Result<String> {
    let mut all = scene.host.ip("-o link")?;
    // Counters of the bridge's timers and states of carriers are no part of it.
    all = all
        .lines()
        .filter_map(|line| line.split(" mtu ").next())
        .collect::<Vec<_>>()
        .join("\n");
    for (program, arguments) in [
        ("nft", "list tables"),
        ("tc", "qdisc show"),
        ("tc", "filter show dev tap0 ingress"),
    ] {
        let mut command = scene.host.command(program);
        command.args(arguments.split(' '));
        all.push('\n');
        all.push_str(&probe::output(&mut command)?);
    }
    Ok(all)
}

fn second_layer_is_there(scene: &Scene) -> Result<bool> {
    Ok(second(scene)?.exists())
}

/// Whether any program is attached to the tap device, as the kernel says.
fn programs_at_device(scene: &Scene) -> Result<usize> {
    scene.host.run(|| {
        let mut count = 0;
        for direction in [
            aya::programs::TcAttachType::Ingress,
            aya::programs::TcAttachType::Egress,
        ] {
            let (_, programs) = aya::programs::SchedClassifier::query_tcx(TAP, direction)?;
            count += programs.len();
        }
        Ok(count)
    })
}

#[test]
fn a_fence_that_ended_leaves_nothing() -> Result<()> {
    for is_killed in [false, true] {
        let bed = scene::bed(kind(Link::Bridged, Header::None, false))?;
        let before = inventory(&bed.scene)?;
        ensure!(programs_at_device(&bed.scene)? == 0);
        let (fence, mut shell) = fence(&bed.scene, "leaves", &[])?;
        ensure!(programs_at_device(&bed.scene)? == 2);
        ensure!(second_layer_is_there(&bed.scene)?);
        for layer in [Layer::First, Layer::Second] {
            let pins = pins(&bed.scene, &fence, layer)?;
            ensure!(
                !pins.is_empty() && pins.iter().all(|pin| pin.exists()),
                "{pins:?}"
            );
        }
        if is_killed {
            shell.kill_supervisor()?;
            ensure!(programs_at_device(&bed.scene)? == 2, "the pins keep them");
            let mut rm = bed.scene.host.command(qfence()?);
            probe::output(rm.args(["rm", "--time", "0", fence.name()]))?;
        } else {
            shell.close_input();
            let code = shell.wait_for_code()?;
            ensure!(code == 0, "{code}: {}", shell.stderr());
        }
        remains::ensure_none(fence.name())?;
        ensure!(programs_at_device(&bed.scene)? == 0, "a program stays");
        ensure!(
            !second_layer_is_there(&bed.scene)?,
            "the second layer stays"
        );
        let after = inventory(&bed.scene)?;
        ensure!(before == after, "before:\n{before}\nafter:\n{after}");
    }
    Ok(())
}

/// The second layer is shared: it goes with the last fence of the namespace.
#[test]
fn the_second_layer_goes_with_the_last_fence() -> Result<()> {
    let kind = kind(Link::Bridged, Header::None, false);
    let mut bed = scene::bed(kind)?;
    make_tap(&bed.scene.host, "tap1", Header::None)?;
    let (first, mut shell) = fence(&bed.scene, "first", &[])?;
    let second = Fence::new("second")?.with(&["--device", "tap1"]);
    let mut other = Shell::start(second.command(&bed.scene.host, "sh"))?;
    other.close_input();
    other.wait_for_code()?;
    remains::ensure_none(second.name())?;
    ensure!(second_layer_is_there(&bed.scene)?);
    let rows = table::rows(kind);
    let row = named(&rows, "udp that is translated to another address")?;
    let outcome = bed.send(row, |outcome| row.is_held(outcome))?;
    ensure!(row.is_held(&outcome), "{outcome}");
    shell.close_input();
    shell.wait_for_code()?;
    remains::ensure_none(first.name())?;
    ensure!(!second_layer_is_there(&bed.scene)?);
    let outcome = bed.send(row, |outcome| row.shows(outcome))?;
    ensure!(row.shows(&outcome), "after the fence: {outcome}");
    Ok(())
}

/// Layer 2 recognises a guest by its MAC address. Another fence does not get it, and cannot take it away with its end.
#[test]
fn the_mac_address_of_a_guest_in_another_fence_is_refused() -> Result<()> {
    let kind = kind(Link::Bridged, Header::None, false);
    let mut bed = scene::bed(kind)?;
    make_tap(&bed.scene.host, "tap1", Header::None)?;
    let (first, shell) = fence(&bed.scene, "owner", &[])?;
    let start = |mac| {
        let other = Fence::new("taker")?.with(&["--device", "tap1", "--mac", mac]);
        let mut command = other.command(&bed.scene.host, "true");
        without_sudo(&mut command);
        let ended = to_end(command)?;
        remains::ensure_none(other.name())?;
        anyhow::Ok(ended)
    };
    let refused = start(GUEST_MAC)?;
    ensure!(refused.code() == Some(125), "{refused:?}");
    let words = format!(
        "a guest in the fence {} has the MAC address {GUEST_MAC} already",
        first.name()
    );
    ensure!(refused.stderr.contains(&words), "{refused:?}");
    // The control: it may have another one.
    let started = start("02:00:00:00:00:77")?;
    ensure!(started.code() == Some(0), "control: {started:?}");

    // Without layer 1 there is no tag: layer 2 recognises the guest by its device or its MAC address.
    shell.kill_supervisor()?;
    take_away(&bed.scene, &first, Layer::First)?;
    let rows = table::rows(kind);
    let row = named(&rows, "udp that is translated to another address")?;
    let outcome = bed.send(row, |outcome| row.is_held(outcome))?;
    ensure!(row.is_held(&outcome), "{outcome}");
    Ok(())
}

/// A network namespace ends with its last process, although a link was pinned there.
#[test]
fn no_pin_keeps_a_network_namespace() -> Result<()> {
    let scene = scene::lay_out(kind(Link::Routed, Header::None, false))?;
    let tap = scene.open()?;
    let (_fence, mut shell) = fence(&scene, "netns", &[])?;
    shell.close_input();
    shell.wait_for_code()?;
    drop(tap);
    // Its wires end with it.
    let internet = scene.internet.clone();
    let has_wire =
        |internet: &Namespace| Ok::<_, anyhow::Error>(internet.ip("-o link")?.contains("inet@"));
    ensure!(has_wire(&internet)?);
    drop(scene);
    wait_until("the namespace ends", || Ok(!has_wire(&internet)?))
}

/// Waits until the supervisor has said something of the device.
fn await_said(shell: &Shell, words: &str) -> Result<()> {
    wait_until("it is said", || {
        let said = shell.stderr();
        let mut lines = said.lines();
        Ok(lines.any(|line| line.contains(TAP) && line.contains(words)))
    })
    .with_context(|| shell.stderr())
}

/// A device that is gone has nobody to fence. A device of the same name is another device: it is fenced again before it
/// is set up.
#[test]
fn a_device_that_is_made_again_is_fenced_again() -> Result<()> {
    let kind = kind(Link::Bridged, Header::None, false);
    let mut bed = scene::bed(kind)?;
    let (fence, shell) = fence(&bed.scene, "again", &[])?;
    bed.scene.host.ip("link del tap0")?;
    await_said(&shell, "gone")?;
    let user = tests::namespace::NOBODY.uid;
    bed.scene
        .host
        .ip(&format!("tuntap add dev tap0 mode tap user {user}"))?;
    let mut last = String::new();
    wait_until("the new device is fenced", || {
        last = ps(&bed.scene, &fence)?;
        Ok(!last.contains("UNFENCED") && programs_at_device(&bed.scene)? == 2)
    })
    .with_context(|| format!("{last}\n{}", shell.stderr()))?;
    bed.scene
        .host
        .ip_batch("link set tap0 master br0\nlink set tap0 up\n")?;
    bed.tap = bed.scene.open()?;
    bed.evidence.settle()?;
    let wrong = bed.fenced(&table::rows(kind))?;
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

#[test]
fn a_device_that_moves_to_another_namespace_is_noticed() -> Result<()> {
    let scene = scene::lay_out(kind(Link::Bridged, Header::None, false))?;
    let (fence, shell) = fence(&scene, "moved", &[])?;
    let elsewhere = scene.neighbour.path();
    let elsewhere = elsewhere.display();
    scene.host.ip(&format!("link set tap0 netns {elsewhere}"))?;
    await_unfenced(&scene, &fence, &shell)
}

/// Links that somebody detaches are put back; without a supervisor nobody does, and `ps` shows it.
#[test]
fn a_layer_that_is_taken_away_is_put_back_or_shown() -> Result<()> {
    for (layer, row) in [
        (Layer::First, "arp for 10.50.0.1"),
        (Layer::Second, "udp that is translated to another address"),
    ] {
        let kind = kind(Link::Bridged, Header::None, false);
        let mut bed = scene::bed(kind)?;
        let rows = table::rows(kind);
        let row = named(&rows, row)?;
        let (fence, shell) = fence(&bed.scene, "back", &[])?;
        take_away(&bed.scene, &fence, layer)?;
        let mut outcome = bed.send(row, |_| true)?;
        wait_until("it is put back", || {
            outcome = bed.send(row, |outcome| row.is_held(outcome))?;
            Ok(row.is_held(&outcome) && !ps(&bed.scene, &fence)?.contains("UNFENCED"))
        })
        .with_context(|| format!("{layer:?}: {outcome}\n{}", shell.stderr()))?;
        ensure!(!shell.stderr().contains("NOT FENCED"), "{}", shell.stderr());
        shell.kill_supervisor()?;
        ensure!(
            !ps(&bed.scene, &fence)?.contains("UNFENCED"),
            "{layer:?}: an orphan is fenced"
        );
        take_away(&bed.scene, &fence, layer)?;
        await_unfenced(&bed.scene, &fence, &shell)?;
        let outcome = bed.send(row, |outcome| row.shows(outcome))?;
        ensure!(row.shows(&outcome), "control: {layer:?}: {outcome}");
    }
    Ok(())
}

/// The number of refused attempts that `ps` shows, and that of the metrics.
fn refused(scene: &Scene, fence: &Fence) -> Result<(u64, u64)> {
    let mut command = scene.host.command(qfence()?);
    let listed = probe::output(command.args(["ps", "--json"]))?;
    let listed: Vec<serde_json::Value> = serde_json::from_str(&listed)?;
    let mut rows = listed.into_iter();
    let row = rows.find(|row| row["name"] == fence.name());
    let row = row.context("ps does not list it")?;
    let shown = row["attempts"]["refused"].as_u64();
    let mut command = scene.host.command(qfence()?);
    let metrics = probe::output(command.arg("metrics"))?;
    let series = metrics.lines().find(|line| {
        line.starts_with("qfence_attempts_total{")
            && line.contains(fence.name())
            && line.contains("\"denied\"")
    });
    let value = series.and_then(|line| line.rsplit(' ').next()?.parse().ok());
    Ok((
        shown.with_context(|| row.to_string())?,
        value.with_context(|| metrics.clone())?,
    ))
}

#[test]
fn what_the_second_layer_drops_is_counted() -> Result<()> {
    let kind = kind(Link::Bridged, Header::None, false);
    let mut bed = scene::bed(kind)?;
    let (fence, _shell) = fence(&bed.scene, "counted", &[])?;
    let rows = table::rows(kind);
    let row = named(&rows, "udp that is translated to another address")?;
    let before = refused(&bed.scene, &fence)?;
    for _ in 0..3 {
        bed.send(row, |outcome| row.is_held(outcome))?;
    }
    let after = refused(&bed.scene, &fence)?;
    ensure!(
        after.0 >= before.0 + 3 && after.1 >= before.1 + 3,
        "{before:?}, then {after:?}"
    );
    Ok(())
}

/// Somebody else's program in front of the fence's lets everything through.
#[test]
fn a_program_in_front_is_noticed() -> Result<()> {
    let kind = kind(Link::Bridged, Header::None, false);
    let mut bed = scene::bed(kind)?;
    let (fence, shell) = fence(&bed.scene, "front", &[])?;
    let foreign = Foreign::attach(&bed.scene.host, TAP, Order::First)?;
    let rows = table::rows(kind);
    let row = named(&rows, "arp for 10.50.0.1")?;
    let outcome = bed.send(row, |outcome| row.shows(outcome))?;
    ensure!(row.shows(&outcome), "the control: {outcome}");
    await_unfenced(&bed.scene, &fence, &shell)?;
    drop(foreign);
    let mut last = String::new();
    wait_until("it is whole again", || {
        last = ps(&bed.scene, &fence)?;
        Ok(!last.contains("UNFENCED"))
    })
    .with_context(|| format!("{last}\n{}", shell.stderr()))?;
    let outcome = bed.send(row, |outcome| row.is_held(outcome))?;
    ensure!(row.is_held(&outcome), "{outcome}");
    Ok(())
}

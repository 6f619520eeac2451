//! What each program takes of that, by the kernel's own clocks.

use anyhow::Result;
use qfence_common::Hook;
use tests::bench::Series;

use crate::{
    clocks::Clocks,
    loads::{Kind, Traffic},
    scene::Scene,
};

/// For how long traffic is made, in milliseconds.
const ROUND: u32 = 50;

/// Makes all traffic in a fence while the kernel measures: it costs a program some 20 ns to be measured.
pub(crate) fn measure(fenced: &mut Scene, rounds: usize) -> Result<Vec<Series>> {
    let clocks = Clocks::start(fenced.fence()?)?;
    let mut all = Vec::new();
    let rival = fenced.rival();
    let is_measured = |traffic: &Traffic| traffic.kind.is_for(rival);
    for traffic in Traffic::all().filter(is_measured) {
        let hooks = hooks(traffic.kind);
        // Each by itself: to compare one program with another says nothing.
        let group = |hook: &Hook| format!("{}, at {}", traffic.group(), hook.name());
        let mut series: Vec<_> = hooks
            .iter()
            .map(|hook| Series::new(group(hook), "ns"))
            .collect();
        for _ in 0..rounds {
            let before: Vec<_> = hooks.iter().map(|hook| clocks.read(*hook)).collect();
            fenced.sample(&traffic, ROUND)?;
            for ((hook, before), series) in hooks.iter().zip(before).zip(&mut series) {
                // Each family has hooks of its own.
                if let Ok(ns) = before?.each(clocks.read(*hook)?) {
                    series.push("a run of the program", ns);
                }
            }
        }
        all.extend(series);
    }
    Ok(all)
}

/// The hooks that such traffic comes to.
fn hooks(kind: Kind) -> &'static [Hook] {
    match kind {
        Kind::ConnectUdp | Kind::RefusedConnectUdp => &[Hook::Connect4, Hook::Connect6],
        Kind::SendUdp | Kind::RefusedSendUdp => &[Hook::Sendmsg4, Hook::Sendmsg6, Hook::Egress],
        Kind::ConnectTcp | Kind::ConnectOwn | Kind::RefusedTcp => &[
            Hook::SockCreate,
            Hook::Connect4,
            Hook::Connect6,
            Hook::Egress,
            Hook::Ingress,
        ],
        // The same programs run as for `ConnectTcp`.
        Kind::ConnectTcpAlone => &[],
        Kind::Upload | Kind::Download => &[Hook::Egress, Hook::Ingress],
        Kind::UploadUdp => &[Hook::Egress],
        Kind::DownloadUdp => &[Hook::Ingress],
    }
}

//! What the programs at the device take, for a frame and of all that bulk TCP takes, by the kernel's own clocks.

use std::{fs, net::IpAddr, os::fd::OwnedFd};

use anyhow::{Context as _, Result, bail, ensure};
use aya::{
    programs::{ProgramInfo, loaded_programs},
    sys::{Stats, enable_stats},
};
use qfence_common::Hook;
use tests::{
    bench::{Options, Series},
    tap::{
        scene::{
            GATEWAY_MAC, GATEWAY_V4, GATEWAY_V6, GUEST_MAC, GUEST_V4, GUEST_V6, PORT, SERVER_V4,
            SERVER_V6,
        },
        wire::{self, Flags},
    },
};

use crate::{
    account::Account,
    loads::Load,
    scene::{DISCARD, Setup},
};

/// The name of the only variant.
pub(crate) const RUN: &str = "a run of the program";

/// The name of the only variant of a share.
pub(crate) const PROGRAMS: &str = "the programs at the device";

/// The number of frames of a sample.
const FRAMES: u32 = 2000;

/// The frames whose cost is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Frames {
    ForwardedV4,
    ForwardedV6,
    ResetV4,
    ResetV6,
    ProhibitedV4,
    ProhibitedV6,
}

impl Frames {
    pub(crate) const ALL: [Self; 6] = [
        Self::ForwardedV4,
        Self::ForwardedV6,
        Self::ResetV4,
        Self::ResetV6,
        Self::ProhibitedV4,
        Self::ProhibitedV6,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::ForwardedV4 => "a frame that is forwarded, UDP, IPv4",
            Self::ForwardedV6 => "a frame that is forwarded, UDP, IPv6",
            Self::ResetV4 => "a frame that is answered by a reset, IPv4",
            Self::ResetV6 => "a frame that is answered by a reset, IPv6",
            Self::ProhibitedV4 => "a frame that is answered by ICMP, IPv4",
            Self::ProhibitedV6 => "a frame that is answered by ICMP, IPv6",
        }
    }

    pub(crate) fn is_refused(self) -> bool {
        !matches!(self, Self::ForwardedV4 | Self::ForwardedV6)
    }

    fn frame(self) -> Vec<u8> {
        let udp = |from: IpAddr, to: IpAddr, port| wire::udp((from, 4000), (to, port), &[7; 36]);
        let syn = Flags {
            syn: true,
            ack: false,
            rst: false,
        };
        let packet = match self {
            Self::ForwardedV4 => udp(GUEST_V4, SERVER_V4, DISCARD),
            Self::ForwardedV6 => udp(GUEST_V6, SERVER_V6, DISCARD),
            Self::ProhibitedV4 => udp(GUEST_V4, GATEWAY_V4, PORT),
            Self::ProhibitedV6 => udp(GUEST_V6, GATEWAY_V6, PORT),
            Self::ResetV4 => wire::tcp((GUEST_V4, 4000), (GATEWAY_V4, PORT), syn),
            Self::ResetV6 => wire::tcp((GUEST_V6, 4000), (GATEWAY_V6, PORT), syn),
        };
        wire::packet(GUEST_MAC, GATEWAY_MAC, &packet)
    }
}

/// Measures the program at the device of a fence: it costs a program some 20 ns to be measured.
pub(crate) fn measure(setup: &Setup, frames: Frames, rounds: usize) -> Result<Series> {
    let _measured: OwnedFd =
        enable_stats(Stats::RunTime).context("have the kernel measure programs")?;
    let program = program(setup.supervisor()?, Hook::Frame)?;
    let frame = frames.frame();
    let mut series = Series::new(frames.name(), "ns");
    for _ in 0..rounds {
        let before = read(program)?;
        for _ in 0..FRAMES {
            setup.tap().send_anything(&frame)?;
            // The answer; nothing else may fill the device's queue.
            while setup.tap().receive()?.is_some() {}
        }
        let after = read(program)?;
        let runs = after.run_count() - before.run_count();
        ensure!(runs >= u64::from(FRAMES), "it ran {runs} times");
        let ns = u32::try_from((after.run_time() - before.run_time()).as_nanos())?;
        series.push(RUN, f64::from(ns) / f64::from(u32::try_from(runs)?));
    }
    Ok(series)
}

/// The share of the processor time of a load that the programs at the device take, in per cent. It is comparable on a busy
/// machine too, where throughputs are not.
pub(crate) fn share(
    setup: &mut Setup,
    load: Load,
    options: &Options,
    account: &Account,
) -> Result<Series> {
    let _measured: OwnedFd =
        enable_stats(Stats::RunTime).context("have the kernel measure programs")?;
    let supervisor = setup.supervisor()?;
    let programs = [
        program(supervisor, Hook::Frame)?,
        program(supervisor, Hook::FrameOut)?,
    ];
    let taken = || -> Result<f64> {
        let [judge, note] = programs;
        let ns = read(judge)?.run_time() + read(note)?.run_time();
        Ok(ns.as_secs_f64() * 1e6)
    };
    let name = format!("share of the processor time of {}", load.name());
    let mut series = Series::new(name, "%");
    for _ in 0..options.either(5, 50) {
        let before = (taken()?, account.read()?);
        load.sample(setup, options.quick)?;
        let (programs, all) = (taken()? - before.0, account.read()? - before.1);
        ensure!(programs > 0.0, "the programs did not run");
        series.push(PROGRAMS, programs / all * 100.0);
    }
    Ok(series)
}

/// The id of a fence's program at a hook of devices, which its supervisor keeps open.
fn program(supervisor: u32, hook: Hook) -> Result<u32> {
    let name = hook.row().program;
    for entry in
        fs::read_dir(format!("/proc/{supervisor}/fdinfo")).context("the supervisor runs")?
    {
        let info = fs::read_to_string(entry?.path()).unwrap_or_default();
        let id = info.lines().find_map(|line| line.strip_prefix("prog_id:"));
        let id = id.and_then(|id| id.trim().parse().ok());
        if let Some(id) = id
            && read(id)?.name_as_str() == Some(name)
        {
            return Ok(id);
        }
    }
    bail!("the supervisor {supervisor} keeps no program {name}")
}

fn read(id: u32) -> Result<ProgramInfo> {
    let mut all = loaded_programs().flatten();
    let found = all.find(|program| program.id() == id);
    found.with_context(|| format!("there is no program {id}"))
}

//! Whether the programs of a network device still judge all of its frames.
//!
//! A program that another one precedes may not run: the first program whose result is a verdict ends the chain
//! (`tcx_run` in net/core/dev.c). A link stays attached if its device moves to another network namespace, and it is
//! severed if the device is deleted.

use std::{fmt, io, os::fd::BorrowedFd, path::Path};

use anyhow::{Context as _, Result};
use nix::errno::Errno;
use qfence_common::Hook;

use super::{
    HOOKS, classic,
    pins::{Marker, pin},
    tcx::{EGRESS, INGRESS},
};
use crate::kernel::{
    by_path,
    link_info::{self, DeviceLink, id_of_program},
    query::Query,
    syscall::bpf,
    within::within,
};

/// The most programs of one direction of a device, as in the kernel (`BPF_MPROG_MAX`).
const MOST: usize = 64;

/// The state of one program of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// It is attached, and runs before all others.
    First,
    /// These programs run before it, by id (0 for a filter that is no program). One of them can keep it from running.
    Behind(Vec<u32>),
    /// Its device was deleted, or somebody detached it.
    Severed,
    /// Its device is in another network namespace.
    Elsewhere,
    /// Its link is not pinned.
    Unpinned,
}

impl State {
    /// That of a program which runs after these.
    fn after(before: Vec<u32>) -> Self {
        if before.is_empty() {
            Self::First
        } else {
            Self::Behind(before)
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::First => write!(f, "it judges all frames"),
            Self::Behind(programs) => {
                let ids: Vec<String> = programs.iter().map(ToString::to_string).collect();
                write!(f, "other programs run first (ids {})", ids.join(", "))
            }
            Self::Severed => write!(f, "the device was deleted, or its program detached"),
            Self::Elsewhere => write!(f, "the device is in another network namespace"),
            Self::Unpinned => write!(f, "the pin of its link was removed"),
        }
    }
}

/// The state of both programs of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct States {
    /// Of that for frames from the guest.
    pub frame: State,
    /// Of that for frames to the guest.
    pub frame_out: State,
}

/// A program in the chain of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) program: u32,
    /// The id of its link; 0 if it has none.
    pub(super) link: u32,
}

/// The state of the programs of a device, whose links are pinned in `pins`. `netns` is the namespace in which the device
/// was fenced; the caller's for `None`.
///
/// # Errors
/// If the kernel does not say.
pub fn state(netns: Option<BorrowedFd<'_>>, pins: &Path, index: u32) -> Result<States> {
    let [frame, frame_out] = HOOKS.map(|hook| of_hook(netns, pins, hook, index));
    Ok(States {
        frame: frame?,
        frame_out: frame_out?,
    })
}

fn of_hook(netns: Option<BorrowedFd<'_>>, pins: &Path, hook: Hook, index: u32) -> Result<State> {
    let path = pin(pins, hook, index);
    let context = || format!("cannot query {}", path.display());
    let link = match by_path::open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(State::Unpinned),
        link => link.with_context(context)?,
    };
    if Marker::of(pins, index)?.is_some() {
        let program = id_of_program(&link).with_context(context)?;
        return of_filters(netns, index, program).with_context(context);
    }
    let link = link_info::of_device(&link).with_context(context)?;
    if link.index == 0 {
        return Ok(State::Severed);
    }
    let chain = within(netns, || {
        chain(link.index, link.attach_type).context("cannot query the programs of the device")
    })
    .with_context(context)?;
    Ok(judge(&link, &chain))
}

/// The state of a program that is attached by a filter. Both directions are looked at, because it does not say which it
/// was attached to. A device that moves to another namespace loses its filters.
fn of_filters(netns: Option<BorrowedFd<'_>>, index: u32, program: u32) -> Result<State> {
    let chains = within(netns, || {
        Ok([
            classic::chain(index, INGRESS)?,
            classic::chain(index, EGRESS)?,
        ])
    });
    for chain in chains.context("cannot query the filters of the device")? {
        let place = chain
            .iter()
            .position(|filter| filter.is_ours && filter.program == program);
        if let Some(place) = place {
            let before = chain.iter().take(place);
            return Ok(State::after(before.map(|filter| filter.program).collect()));
        }
    }
    Ok(State::Severed)
}

/// A device in another namespace can have the index of one in this.
fn judge(link: &DeviceLink, chain: &[Member]) -> State {
    let Some(place) = chain.iter().position(|member| member.link == link.id) else {
        return State::Elsewhere;
    };
    let before = chain.iter().take(place);
    State::after(before.map(|member| member.program).collect())
}

/// The programs of one direction of a device in the caller's network namespace, in the order in which they run; none if
/// there is no such device.
pub(super) fn chain(index: u32, attach_type: u32) -> io::Result<Vec<Member>> {
    match query(index, attach_type) {
        Err(error) if error.raw_os_error() == Some(Errno::ENODEV as i32) => Ok(Vec::new()),
        chain => chain,
    }
}

/// As [`chain`]; ENODEV if there is no such device, and EINVAL if the kernel has no tcx.
pub(super) fn query(index: u32, attach_type: u32) -> io::Result<Vec<Member>> {
    let mut programs = [0_u32; MOST];
    let mut links = [0_u32; MOST];
    let mut query = Query {
        target: index,
        attach_type,
        prog_ids: programs.as_mut_ptr() as u64,
        link_ids: links.as_mut_ptr() as u64,
        count: u32::try_from(MOST).map_err(io::Error::other)?,
        ..Query::default()
    };
    bpf(&mut query)?;
    let count = usize::try_from(query.count).unwrap_or(MOST).min(MOST);
    let members = programs.into_iter().zip(links).take(count);
    Ok(members
        .map(|(program, link)| Member { program, link })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_program_is_sure_to_run() {
        let link = DeviceLink {
            id: 7,
            index: 3,
            attach_type: 46,
        };
        let ours = Member {
            program: 70,
            link: 7,
        };
        let other = Member {
            program: 80,
            link: 8,
        };
        assert_eq!(judge(&link, &[ours]), State::First);
        assert_eq!(judge(&link, &[ours, other]), State::First);
        assert_eq!(judge(&link, &[other, ours]), State::Behind(vec![80]));
        assert_eq!(judge(&link, &[other]), State::Elsewhere);
        assert_eq!(judge(&link, &[]), State::Elsewhere);
    }
}

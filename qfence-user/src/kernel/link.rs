//! Loads, attaches and pins programs of all types of a fence.

use std::{fs::File, os::fd::OwnedFd, path::Path};

use anyhow::{Context, Result};
use aya::{
    Btf,
    programs::{
        CgroupAttachMode, CgroupSkbAttachType, Program, ProgramError,
        links::{FdLink, PinnedLink},
    },
};
use qfence_common::Hook;

use super::{by_path, own_link};

/// Loads a program. `types` is the kernel's type information, which only the programs of [`Hook::LSM`] need.
///
/// # Errors
/// If the kernel rejects it.
pub(super) fn load(
    program: &mut Program,
    hook: Hook,
    types: Option<&Btf>,
) -> Result<(), ProgramError> {
    match (program, types) {
        (Program::CgroupSockAddr(program), _) => program.load(),
        (Program::CgroupSkb(program), _) => program.load(),
        (Program::CgroupSock(program), _) => program.load(),
        (Program::CgroupDevice(program), _) => program.load(),
        (Program::CgroupSockopt(program), _) => program.load(),
        (Program::SchedClassifier(program), _) => program.load(),
        (Program::LsmCgroup(program), Some(types)) => program.load(hook.name(), types),
        _ => Err(ProgramError::UnexpectedProgramType),
    }
}

/// A program attached to a cgroup, as long as this lives.
pub(super) enum Link {
    /// Made by aya.
    Aya(FdLink),
    /// Made by `own_link.rs`, for types whose links aya keeps to itself.
    Own(OwnedFd),
}

/// A pinned link. It remains after this is dropped, until its pin is removed as well.
pub(super) enum Pinned {
    /// Made by aya.
    Aya(#[expect(dead_code, reason = "held, not used")] PinnedLink),
    /// Made by `own_link.rs`.
    Own(#[expect(dead_code, reason = "held, not used")] OwnedFd),
}

impl Link {
    /// Pins it at a path in bpffs.
    ///
    /// # Errors
    /// If the kernel does not allow it.
    pub(super) fn pin(self, path: &Path) -> Result<Pinned> {
        Ok(match self {
            Self::Aya(link) => Pinned::Aya(link.pin(path)?),
            Self::Own(link) => {
                by_path::pin(&link, path)?;
                Pinned::Own(link)
            }
        })
    }
}

/// Attaches a program to a cgroup.
///
/// # Errors
/// If the kernel does not allow it.
pub(super) fn attach(program: &mut Program, hook: Hook, cgroup: &File) -> Result<Link> {
    // `Single` sets no flags, as links require. Links always allow several programs.
    let mode = CgroupAttachMode::Single;
    let link: Result<FdLink, _> = match program {
        Program::CgroupSockAddr(program) => {
            let id = program.attach(cgroup, mode)?;
            program.take_link(id)?.try_into()
        }
        Program::CgroupSkb(program) => {
            let direction = if hook == Hook::Ingress {
                CgroupSkbAttachType::Ingress
            } else {
                CgroupSkbAttachType::Egress
            };
            let id = program.attach(cgroup, direction, mode)?;
            program.take_link(id)?.try_into()
        }
        Program::CgroupSock(program) => {
            let id = program.attach(cgroup, mode)?;
            program.take_link(id)?.try_into()
        }
        Program::CgroupDevice(program) => {
            let link = own_link::attach(program.fd()?, cgroup, hook)?;
            return Ok(Link::Own(link));
        }
        Program::CgroupSockopt(program) => {
            let link = own_link::attach(program.fd()?, cgroup, hook)?;
            return Ok(Link::Own(link));
        }
        Program::LsmCgroup(program) => {
            let link = own_link::attach(program.fd()?, cgroup, hook)?;
            return Ok(Link::Own(link));
        }
        _ => return Err(ProgramError::UnexpectedProgramType.into()),
    };
    link.map(Link::Aya)
        .context("the kernel has no links for cgroups (Linux 5.7)")
}

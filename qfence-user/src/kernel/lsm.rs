//! What the programs of [`Hook::MANAGERS`] need, and others do not.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use aya::Btf;
use qfence_common::{Hook, manager};

use super::{load::Variant, manager_names::ManagerNames, offsets};

/// The names and offsets by which they recognise managers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lsm<'a> {
    pub(super) names: &'a ManagerNames,
    pub(super) offsets: manager::Offsets,
}

impl<'a> Lsm<'a> {
    /// With the offsets of this kernel. `run` is the directory of the file that caches offsets.
    ///
    /// # Errors
    /// If its type information lacks them, or the offsets of cgroups, which `variant` has.
    pub(super) fn new(names: &'a ManagerNames, variant: &Variant, run: &Path) -> Result<Self> {
        ensure!(
            variant.netns.are_known != 0,
            "the kernel does not show the cgroups of sockets"
        );
        let offsets = offsets::of_this_kernel(run)?.manager;
        let offsets =
            offsets.context("this kernel's type information lacks the types of Unix sockets")?;
        Ok(Self { names, offsets })
    }
}

/// The kernel's type information, if one of the hooks needs it: a hook of a security module is named by the number of its
/// type. Reading it takes 15 ms and 20 MB.
///
/// # Errors
/// If it is needed and cannot be read.
pub(super) fn types_for(hooks: &[Hook]) -> Result<Option<Btf>> {
    if !hooks.iter().any(|hook| hook.is_lsm()) {
        return Ok(None);
    }
    let types = Btf::from_sys_fs().context("cannot read the kernel's type information")?;
    Ok(Some(types))
}

//! How the managers are closed for the command.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result};

use super::words::step;
use crate::{
    base::paths::Paths,
    build::lsm::lsm_runs,
    cli::Exec,
    confinement::UnixName,
    fence::guard::Fence,
    kernel::manager_names::ManagerNames,
    launch::{child::Lifted, managers::Managers},
};

/// How the managers are closed for the command.
#[derive(Clone, Debug)]
pub(super) enum Managed {
    /// They are not: the command runs as root, or `--allow-bus` is given.
    Open,
    /// Their sockets are masked, and a Landlock domain closes the ways around the masks.
    Masked,
    /// Programs for Unix sockets recognise them by these names.
    Judged(ManagerNames),
    /// Their sockets are masked, and there are ways around the masks. The reason why programs for Unix sockets cannot be
    /// used.
    OnlyMasked(String),
}

impl Managed {
    /// The names by which programs for Unix sockets recognise them, if these programs are used.
    pub(super) fn names(&self) -> Option<&ManagerNames> {
        match self {
            Self::Judged(names) => Some(names),
            Self::Open | Self::Masked | Self::OnlyMasked(_) => None,
        }
    }
}

/// Finds out whether programs for Unix sockets can close the managers on this kernel, which has no domain. The sockets
/// `allowed` remain reachable.
///
/// # Errors
/// If it cannot be tried.
pub(super) fn without_domain(
    options: &Exec,
    managers: &Managers,
    allowed: &BTreeSet<UnixName>,
    fence: &Fence,
    paths: &Paths,
    limits: Lifted,
) -> Result<Managed> {
    let runs = lsm_runs(fence.cgroup(), &paths.run, limits)
        .context("cannot try the programs for Unix sockets")?;
    Ok(match runs.usable() {
        Ok(()) => {
            step(options, "programs for Unix sockets refuse managers");
            Managed::Judged(managers.names(allowed))
        }
        Err(reason) => {
            step(
                options,
                format_args!("programs for Unix sockets cannot be used: {reason}"),
            );
            Managed::OnlyMasked(reason)
        }
    })
}

//! Managers: the services that run programs for others (systemd, container engines), and the buses that lead to them.
//!
//! A process in the fence could ask its user's systemd to move it out of the fence: PID 1 moves any process of the user
//! that asks, wherever it comes from (`bus_unit_method_attach_processes` in systemd's src/core/dbus-unit.c). A container
//! engine would run a program outside of the fence. No hook of the fence sees this, because these sockets are not
//! internet sockets.
//!
//! So the command gets a mount namespace of its own, in which the sockets of managers are masked ([`masks`]), and none
//! of the groups that may use them ([`groups`]). The mounts of a process outside would lead around the masks
//! (/proc/PID/root). The command's Landlock domain forbids that (`child/domain.rs`), or, on kernels without such domains, the
//! programs for Unix sockets do, which recognise managers by the cgroups and names of their sockets ([`names`]).

mod found;
mod groups;
mod keeper;
mod masks;
mod names;
mod table;

use std::{
    env,
    path::{Path, PathBuf},
    thread,
};

use anyhow::Result;

use nix::unistd::{Gid, Uid};

use crate::{
    base::identity::Identity,
    confinement::{ManagerPath, managers},
    host::unix_listeners,
};
pub use keeper::Keeper;
pub use masks::{Entered, Namespace};
use table::{Cover, Endpoint};

/// The managers of this host as one user reaches them.
#[derive(Clone, Debug)]
pub struct Managers {
    /// The user.
    uid: Uid,
    /// What is masked.
    endpoints: Vec<Endpoint>,
    /// The sockets that remain reachable.
    allowed: Vec<PathBuf>,
}

impl Managers {
    /// The managers that a user can reach, except by the sockets `allowed`. With `closes_name_services` they include
    /// services that look names up. `proc` is where procfs is mounted.
    ///
    /// # Errors
    /// If the list of Unix sockets cannot be read.
    pub fn of(
        identity: &Identity,
        allowed: &[PathBuf],
        closes_name_services: bool,
        proc: &Path,
    ) -> Result<Self> {
        let listeners = unix_listeners::names(proc)?;
        let mut endpoints = table::endpoints(identity.uid, identity.gid, login(identity));
        let found = found::endpoints(identity.uid, &endpoints, &listeners, |name| {
            env::var_os(name)
        });
        endpoints.extend(found);
        if closes_name_services {
            // Each look-up of the C library tries the socket of nscd, so it is refused only where there is one.
            let services = table::name_services();
            endpoints.extend(services.filter(|service| service.path.exists()));
        }
        Ok(Self {
            uid: identity.uid,
            endpoints,
            allowed: allowed.to_vec(),
        })
    }

    /// The paths that are masked and that no process of the fence can use for itself, with the numbers of their managers.
    #[must_use]
    pub fn paths(&self) -> Vec<ManagerPath> {
        let masked = self.endpoints.iter().filter(|endpoint| {
            endpoint.cover == Cover::Empty && !self.allowed.contains(&endpoint.path)
        });
        masked
            .map(|endpoint| ManagerPath {
                // A test in `table.rs` makes sure that it has one.
                manager: managers::number(endpoint.manager).unwrap_or_default(),
                path: endpoint.path.clone(),
            })
            .collect()
    }

    /// Removes the groups that may use managers from a user's supplementary groups; returns the removed ones.
    #[must_use]
    pub fn take_groups(&self, identity: &mut Identity) -> Vec<Gid> {
        groups::take(identity, &self.endpoints, &self.allowed)
    }
}

/// Tries whether sockets could be masked here, in a thread with a mount namespace of its own.
///
/// # Errors
/// Why not.
pub fn try_masks() -> Result<(), String> {
    let none = Managers {
        uid: Uid::current(),
        endpoints: Vec::new(),
        allowed: Vec::new(),
    };
    let tried = thread::spawn(move || none.enter()).join();
    match tried {
        Ok(Ok(Entered::Masked(_))) => Ok(()),
        Ok(Ok(Entered::NotPermitted(reason))) => Err(reason),
        Ok(Err(error)) => Err(format!("{error:#}")),
        Err(_) => Err("the thread that tries it has panicked".into()),
    }
}

/// The user's name.
fn login(identity: &Identity) -> Option<&str> {
    let variable = identity
        .environment
        .iter()
        .find(|(name, _)| *name == "LOGNAME");
    variable?.1.as_ref()?.to_str()
}

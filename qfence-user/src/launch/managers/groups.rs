//! The groups that may use managers. The command does not get them: a group opens a socket under whatever name, also one
//! that is made later.

use std::{
    os::unix::fs::{FileTypeExt as _, MetadataExt as _},
    path::PathBuf,
};

use nix::unistd::{Gid, Group};

use super::table::Endpoint;
use crate::base::identity::Identity;

/// Groups whose members may use a manager as they like, by the names that distributions give them.
const NAMES: [&str; 7] = [
    "docker",
    "incus",
    "incus-admin",
    "libvirt",
    "libvirtd",
    "lxd",
    "podman",
];

/// The mode bits with which a group may connect to a socket.
const GROUP_CONNECTS: u32 = 0o020;

/// Removes those groups from the supplementary groups, except the ones of sockets in `allowed`; returns the removed ones.
pub(super) fn take(
    identity: &mut Identity,
    endpoints: &[Endpoint],
    allowed: &[PathBuf],
) -> Vec<Gid> {
    if identity.groups.iter().all(|group| *group == identity.gid) {
        // Nothing to look up, which can take long where groups are on a server.
        return Vec::new();
    }
    let owner = |path: &PathBuf| {
        let socket = path.symlink_metadata().ok()?;
        let is_open = socket.file_type().is_socket() && socket.mode() & GROUP_CONNECTS != 0;
        is_open.then(|| Gid::from_raw(socket.gid()))
    };
    let kept: Vec<Gid> = allowed.iter().filter_map(owner).collect();
    let system = endpoints.iter().filter(|endpoint| !endpoint.is_users);
    let owners = system.filter_map(|endpoint| owner(&endpoint.path));
    let named = NAMES
        .iter()
        .filter_map(|name| Some(Group::from_name(name).ok()??.gid));
    let managers: Vec<Gid> = owners.chain(named).collect();
    split(&mut identity.groups, identity.gid, &managers, &kept)
}

/// Removes `managers` from `groups`, except `kept` and the primary group, which the caller may have asked for; returns
/// the removed ones.
fn split(groups: &mut Vec<Gid>, primary: Gid, managers: &[Gid], kept: &[Gid]) -> Vec<Gid> {
    let is_taken = |group: &Gid| {
        *group != primary
            && group.as_raw() != 0
            && managers.contains(group)
            && !kept.contains(group)
    };
    let taken = groups.iter().copied().filter(is_taken).collect();
    groups.retain(|group| !is_taken(group));
    taken
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_of_managers_are_taken_but_for_the_primary_and_the_allowed_one() {
        let gids = |raw: &[u32]| raw.iter().copied().map(Gid::from_raw).collect::<Vec<_>>();
        let mut groups = gids(&[100, 7, 8, 9, 36, 0]);
        let managers = gids(&[100, 7, 8, 9, 0]);
        let taken = split(&mut groups, Gid::from_raw(100), &managers, &gids(&[8]));
        assert_eq!(taken, gids(&[7, 9]));
        assert_eq!(groups, gids(&[100, 8, 36, 0]));
    }
}

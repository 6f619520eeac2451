//! The offsets at which this kernel stores the maker of a network namespace, and the names of Unix sockets. They are read
//! from its type information once a boot, which takes 18 ms, and cached in files.

use std::{collections::BTreeMap, path::Path};

use anyhow::Result;
use qfence_common::{netns::Offsets, unix};

use super::{
    once_a_boot::{self, boot},
    types::{self, Wanted},
};

/// The name of the file, in the directory of descriptions.
const FILE: &str = "kernel-offsets";

/// The name of the file for Unix sockets.
const UNIX_FILE: &str = "kernel-unix-offsets";

/// The members for network namespaces.
const WANTED: Wanted<7> = [
    ("sock_common", "skc_net"),
    ("net", "rtnl"),
    ("sock", "sk_cgrp_data"),
    ("cgroup_subsys_state", "parent"),
    ("cgroup", "self"),
    ("cgroup", "kn"),
    ("kernfs_node", "id"),
];

/// The members for Unix sockets.
const UNIX_WANTED: Wanted<6> = [
    ("socket", "sk"),
    ("sock", "sk_type"),
    ("unix_sock", "addr"),
    ("unix_address", "len"),
    ("unix_address", "name"),
    ("kernfs_node", "name"),
];

type Members = [u32; WANTED.len()];

/// The offsets of this kernel. `run` is the directory of the cache. If it cannot be written, the offsets are read
/// each time.
///
/// # Errors
/// If the kernel has no type information, or one of the members is missing.
pub(super) fn of_this_kernel(run: &Path) -> Result<Offsets> {
    find(run, FILE, &WANTED).map(of_members)
}

/// The offsets of this kernel for Unix sockets.
///
/// # Errors
/// As for [`of_this_kernel`].
pub(super) fn of_unix_sockets(run: &Path) -> Result<unix::Offsets> {
    let [
        socket_sock,
        sock_type,
        unix_address,
        address_length,
        address_name,
        node_name,
    ] = find(run, UNIX_FILE, &UNIX_WANTED)?;
    Ok(unix::Offsets {
        socket_sock,
        sock_type,
        unix_address,
        address_length,
        address_name,
        node_name,
    })
}

/// The offsets of members, from the cache or else from the kernel.
fn find<const N: usize>(run: &Path, file: &str, wanted: &Wanted<N>) -> Result<[u32; N]> {
    let boot = boot();
    if let Some(boot) = &boot
        && let Some(members) = read(run, file, boot, wanted)
    {
        return Ok(members);
    }
    let members = types::members_of(Path::new(types::OF_THE_KERNEL), wanted)?;
    if let Some(boot) = boot {
        // Without the cache the next start reads them again.
        let _ = keep(run, file, boot, wanted, members);
    }
    Ok(members)
}

/// Reads the cache, if it is of this boot and complete.
fn read<const N: usize>(
    run: &Path,
    file: &str,
    boot: &str,
    wanted: &Wanted<N>,
) -> Option<[u32; N]> {
    let kept: BTreeMap<String, u32> = once_a_boot::read(run, file, boot)?;
    let mut members = [0; N];
    for (place, (of, member)) in members.iter_mut().zip(*wanted) {
        *place = *kept.get(&key(of, member))?;
    }
    Some(members)
}

fn keep<const N: usize>(
    run: &Path,
    file: &str,
    boot: String,
    wanted: &Wanted<N>,
    members: [u32; N],
) -> Result<()> {
    let offsets: BTreeMap<_, _> = wanted
        .iter()
        .zip(members)
        .map(|((of, member), offset)| (key(of, member), offset))
        .collect();
    once_a_boot::keep(run, file, boot, offsets)
}

fn key(of: &str, member: &str) -> String {
    format!("{of}.{member}")
}

fn of_members(members: Members) -> Offsets {
    let [
        sock_net,
        net_rtnl,
        sock_cgroup,
        css_parent,
        cgroup_self,
        cgroup_node,
        node_id,
    ] = members;
    Offsets {
        sock_net,
        net_rtnl,
        sock_cgroup,
        cgroup_parent: cgroup_self + css_parent,
        cgroup_self,
        cgroup_node,
        node_id,
        are_known: 1,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn read(run: &Path, boot: &str) -> Option<Members> {
        super::read(run, FILE, boot, &WANTED)
    }

    fn keep(run: &Path, boot: String, members: Members) -> Result<()> {
        super::keep(run, FILE, boot, &WANTED, members)
    }

    const MEMBERS: Members = [48, 352, 704, 16, 8, 272, 112];

    #[test]
    fn this_kernels_offsets_are_within_their_structs() {
        let directory = tempfile::tempdir().unwrap();
        let offsets = of_this_kernel(directory.path()).unwrap();
        assert_eq!(offsets.are_known, 1);
        for offset in [
            offsets.sock_net,
            offsets.net_rtnl,
            offsets.sock_cgroup,
            offsets.cgroup_parent,
            offsets.cgroup_node,
            offsets.node_id,
        ] {
            assert!(
                offset > 0 && offset < 8192 && offset % 4 == 0,
                "{offsets:?}"
            );
        }
        assert_eq!(of_this_kernel(directory.path()).unwrap(), offsets);
        let unix = of_unix_sockets(directory.path()).unwrap();
        for offset in [unix.socket_sock, unix.unix_address, unix.address_name] {
            assert!(offset > 0 && offset < 8192 && offset % 4 == 0, "{unix:?}");
        }
        assert_eq!(of_unix_sockets(directory.path()).unwrap(), unix);
    }

    #[test]
    fn they_are_kept_for_one_boot() {
        let directory = tempfile::tempdir().unwrap();
        let run = directory.path().join("qfence");
        assert_eq!(read(&run, "this"), None);
        keep(&run, "this".into(), MEMBERS).unwrap();
        assert_eq!(read(&run, "this"), Some(MEMBERS));
        assert_eq!(read(&run, "another"), None);
    }

    #[test]
    fn those_kept_in_this_boot_are_used() {
        let directory = tempfile::tempdir().unwrap();
        keep(directory.path(), boot().unwrap(), MEMBERS).unwrap();
        let offsets = of_this_kernel(directory.path()).unwrap();
        assert_eq!(offsets, of_members(MEMBERS));
    }

    #[test]
    fn a_file_that_lacks_a_member_or_is_cut_off_is_not_used() {
        let directory = tempfile::tempdir().unwrap();
        let run = directory.path();
        keep(run, "this".into(), MEMBERS).unwrap();
        let whole = fs::read_to_string(run.join(FILE)).unwrap();
        for other in [
            whole.replace("net.rtnl", "net.other"),
            whole[..whole.len() / 2].to_owned(),
            String::new(),
        ] {
            assert_ne!(other, whole);
            fs::write(run.join(FILE), other).unwrap();
            assert_eq!(read(run, "this"), None);
        }
    }

    #[test]
    fn a_directory_that_others_may_write_to_is_not_read() {
        use std::os::unix::fs::PermissionsExt as _;

        let directory = tempfile::tempdir().unwrap();
        let run = directory.path();
        keep(run, "this".into(), MEMBERS).unwrap();
        fs::set_permissions(run, fs::Permissions::from_mode(0o777)).unwrap();
        assert_eq!(read(run, "this"), None);
    }
}

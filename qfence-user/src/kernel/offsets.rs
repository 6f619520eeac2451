//! The offsets at which this kernel stores the maker of a network namespace, the name of a Unix socket in a call, the root
//! directory of a process, the name and maker of a Unix socket, the tag, headers and checksum of a packet, and the sockets
//! of a task; and the numbers of functions and a type. They are read from its type information once a boot, which takes 18 ms,
//! and cached in a file.

use std::{collections::BTreeMap, path::Path};

use anyhow::Result;
use qfence_common::{
    frame::checksum::{self, MOST},
    listing, local_in, manager, netns, unix,
};

use super::{
    once_a_boot::{self, boot},
    types::{self, Members, WANTED},
};

/// The name of the file, in the directory of descriptions.
pub const FILE: &str = "kernel-offsets";

/// The content of the file: offsets in bytes, or in bits for bit fields, by "struct.member"; null if there is no such member. A
/// file that lacks one of them, as that of an older qfence does, is not used.
type Kept = BTreeMap<String, Option<u32>>;

/// The offsets of this kernel; `None` for those that its type information lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Offsets {
    /// Those at which the maker of a network namespace is found.
    pub(super) netns: Option<netns::Offsets>,
    /// Those at which the name of a Unix socket is found (Linux 6.7).
    pub(super) unix: Option<unix::Offsets>,
    /// Those at which the maker and the name of another Unix socket are found.
    pub(super) manager: Option<manager::Offsets>,
    /// Those at which the tag, the device and the headers of a packet are found.
    pub(super) local_in: Option<local_in::Offsets>,
    /// Those at which a checksum is found that is left to a device.
    pub(super) frame: Option<checksum::Offsets>,
    /// Those at which tasks and sockets are described, and that of `socket.sk`.
    pub(super) listing: Option<(listing::Offsets, u32)>,
}

/// The offsets of this kernel. `run` is the directory of the cache. If it cannot be written, the offsets are read
/// each time.
///
/// # Errors
/// If the kernel has no type information.
pub(super) fn of_this_kernel(run: &Path) -> Result<Offsets> {
    let boot = boot();
    if let Some(boot) = &boot
        && let Some(members) = read(run, boot)
    {
        return Ok(of_members(members));
    }
    let members = types::members_of(Path::new(types::OF_THE_KERNEL))?;
    if let Some(boot) = boot {
        // Without the cache the next start reads them again.
        let _ = keep(run, boot, members);
    }
    Ok(of_members(members))
}

/// The offsets of this kernel, read anew. Nothing is cached.
///
/// # Errors
/// If the kernel has no type information.
pub(super) fn read_anew() -> Result<Offsets> {
    Ok(of_members(types::members_of(Path::new(
        types::OF_THE_KERNEL,
    ))?))
}

/// Reads the cache, if it is of this boot and complete.
fn read(run: &Path, boot: &str) -> Option<Members> {
    let kept: Kept = once_a_boot::read(run, FILE, boot)?;
    let mut members: Members = [None; WANTED.len()];
    for (place, (of, member)) in members.iter_mut().zip(WANTED) {
        *place = *kept.get(&key(of, member))?;
    }
    Some(members)
}

fn keep(run: &Path, boot: String, members: Members) -> Result<()> {
    let offsets: Kept = WANTED
        .into_iter()
        .zip(members)
        .map(|((of, member), offset)| (key(of, member), offset))
        .collect();
    once_a_boot::keep(run, FILE, boot, offsets)
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
        address,
        length,
        task_fs,
        fs_root,
        path_mount,
        path_entry,
        socket_sock,
        sock_type,
        unix_address,
        address_length,
        address_name,
        node_name,
        state_in,
        family,
        device_index,
        tc_index,
        mark,
        first_device,
        device,
        head,
        tail,
        mac_header,
        network_header,
        transport_header,
        data,
        start,
        offset,
        summed,
        task_cgroups,
        default_cgroup,
        task_process,
        task_thread,
        task_name,
        task_credentials,
        user,
        sock_family,
        sock_state,
        sock_port,
        sock_protocol,
        netns_cookie,
        sock_flags,
        broadcast,
        sock_cookie,
        device_v4,
        v6,
        v6_device,
        next,
        unacknowledged,
        end,
        acknowledged,
        sent,
        again,
        subflow,
        inode,
        mode,
        numbers,
        cast,
        cast_read_only,
        ethernet,
    ] = members;
    let netns = || {
        Some(netns::Offsets {
            sock_net: sock_net?,
            net_rtnl: net_rtnl?,
            sock_cgroup: sock_cgroup?,
            cgroup_parent: cgroup_self? + css_parent?,
            cgroup_self: cgroup_self?,
            cgroup_node: cgroup_node?,
            node_id: node_id?,
            are_known: 1,
        })
    };
    let unix = || {
        Some(unix::Offsets {
            address: address?,
            length: length?,
            task_fs: task_fs?,
            root_mount: fs_root? + path_mount?,
            root_entry: fs_root? + path_entry?,
            are_known: 1,
        })
    };
    let manager = || {
        Some(manager::Offsets {
            socket_sock: socket_sock?,
            sock_type: sock_type?,
            unix_address: unix_address?,
            address_length: address_length?,
            address_name: address_name?,
            node_name: node_name?,
        })
    };
    let local_in = || {
        Some(local_in::Offsets {
            state_in: state_in?,
            device_index: device_index?,
            tc_index: tc_index?,
            mark: mark?,
            first_device: first_device?,
            device: device?,
            head: head?,
            tail: tail?,
            mac_header: mac_header?,
            network_header: network_header?,
            transport_header: transport_header?,
            family: family?,
            casts: ethernet.and(cast_read_only).unwrap_or_default(),
            ethernet: ethernet.unwrap_or_default(),
        })
    };
    let frame = || {
        let offsets = checksum::Offsets {
            head: head?,
            data: data?,
            start: start?,
            offset: offset?,
            summed: summed? / 8,
            // The first bit of a byte is the lowest one, or else the highest one, as the CPU orders bytes.
            summed_shift: match summed? % 8 {
                // The second bit is in the next byte.
                7 => return None,
                bit if cfg!(target_endian = "little") => bit,
                bit => 6 - bit,
            },
            are_known: 1,
            casts: cast.unwrap_or_default(),
        };
        let most = [
            offsets.head,
            offsets.data,
            offsets.start,
            offsets.offset,
            offsets.summed,
        ];
        (most.into_iter().max()? <= MOST).then_some(offsets)
    };
    let listing = || {
        let offsets = listing::Offsets {
            task_cgroups: task_cgroups?,
            default_cgroup: default_cgroup?,
            task_process: task_process?,
            task_thread: task_thread?,
            task_name: task_name?,
            task_credentials: task_credentials?,
            user: user?,
            family: sock_family?,
            state: sock_state?,
            port: sock_port?,
            kind: sock_type?,
            protocol: sock_protocol?,
            netns_cookie: netns_cookie?,
            flags: sock_flags?,
            broadcast: broadcast?,
            cookie: sock_cookie?,
            device: device_v4?,
            // Without IPv6 or MPTCP there are no such sockets.
            v6: v6.unwrap_or_default(),
            v6_device: v6_device.unwrap_or_default(),
            next: next?,
            unacknowledged: unacknowledged?,
            end: end?,
            acknowledged: acknowledged?,
            sent: sent?,
            again: again?,
            subflow: subflow.unwrap_or_default(),
            inode: inode?,
            mode: mode?,
            numbers: numbers?,
            taps: [0; 2],
        };
        Some((offsets, socket_sock?))
    };
    Offsets {
        frame: frame(),
        listing: listing(),
        local_in: local_in(),
        netns: netns(),
        unix: unix(),
        manager: manager(),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const MEMBERS: Members = [
        Some(48),
        Some(352),
        Some(704),
        Some(16),
        Some(8),
        Some(272),
        Some(112),
        Some(8),
        None,
        Some(2000),
        Some(24),
        Some(0),
        Some(8),
        Some(24),
        Some(524),
        Some(768),
        Some(4),
        Some(8),
        Some(16),
        Some(8),
        Some(1),
        Some(224),
        Some(132),
        Some(168),
        Some(144),
        Some(16),
        Some(200),
        Some(188),
        Some(182),
        Some(180),
        Some(178),
        Some(208),
        Some(136),
        Some(138),
        Some(1021),
        Some(2816),
        Some(136),
        Some(2404),
        Some(2400),
        Some(2776),
        Some(2760),
        Some(8),
        Some(16),
        Some(18),
        Some(14),
        Some(526),
        Some(80),
        Some(96),
        Some(6),
        Some(56),
        Some(940),
        Some(848),
        Some(28),
        Some(1720),
        Some(1724),
        Some(1728),
        Some(1768),
        Some(1736),
        Some(1744),
        Some(1000),
        Some(32),
        Some(0),
        Some(76),
        Some(63548),
        Some(63549),
        Some(4711),
    ];

    #[test]
    fn this_kernels_offsets_are_within_their_structs() {
        let directory = tempfile::tempdir().unwrap();
        let offsets = of_this_kernel(directory.path()).unwrap();
        let netns = offsets.netns.unwrap();
        let unix = offsets.unix.map(|unix| {
            [
                unix.address,
                unix.length,
                unix.task_fs,
                unix.root_mount,
                unix.root_entry,
            ]
        });
        let manager = offsets.manager.unwrap();
        // Among them are members of unnamed unions and structs.
        let local_in = offsets.local_in.unwrap();
        let (listing, socket_sock) = offsets.listing.unwrap();
        assert!(listing.task_process > 0 && listing.state > 0 && listing.port > 0);
        assert!(listing.end > listing.device && listing.acknowledged > listing.device);
        assert_eq!(listing.broadcast, 6, "SOCK_BROADCAST in net/sock.h");
        assert_eq!(socket_sock, manager.socket_sock);
        assert!(local_in.tc_index > 0 && local_in.mac_header > local_in.network_header);
        let all = [
            local_in.state_in,
            local_in.device_index,
            local_in.mark,
            local_in.first_device,
            local_in.head,
            local_in.tail,
            manager.socket_sock,
            manager.unix_address,
            manager.address_name,
            netns.sock_net,
            netns.net_rtnl,
            netns.sock_cgroup,
            netns.cgroup_parent,
            netns.cgroup_node,
            netns.node_id,
        ];
        for offset in all.into_iter().chain(unix.into_iter().flatten()) {
            assert!(
                offset > 0 && offset < 16384 && offset % 4 == 0,
                "{offsets:?}"
            );
        }
        assert_eq!(of_this_kernel(directory.path()).unwrap(), offsets);
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
    fn what_a_kernel_lacks_does_not_matter_to_the_rest() {
        let offsets = of_members(MEMBERS);
        assert_eq!(offsets.unix, None);
        assert_eq!(offsets.netns.unwrap().cgroup_parent, 24);
        let frame = offsets.frame.unwrap();
        assert_eq!((frame.summed, frame.summed_shift), (127, 5));
        assert_eq!(frame.casts, 63548);
        let mut older = MEMBERS;
        older[63] = None;
        let older = of_members(older).frame.unwrap();
        assert_eq!((older.casts, older.are_known), (0, 1));
        let casts = |members| {
            let local_in = of_members(members).local_in.unwrap();
            (local_in.casts, local_in.ethernet)
        };
        assert_eq!(casts(MEMBERS), (63549, 4711));
        for missing in [64, 65] {
            let mut members = MEMBERS;
            members[missing] = None;
            assert_eq!(casts(members).0, 0);
        }
        let mut far = MEMBERS;
        far[31] = Some(MOST + 1);
        assert_eq!(of_members(far).frame, None);
        // The first of two bits is the last of its byte.
        let mut across = MEMBERS;
        across[34] = Some(127 * 8 + 7);
        assert_eq!(of_members(across).frame, None);
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
            // As a qfence leaves it that does not know of this function.
            whole.replace("bpf_cast_to_kern_ctx.obj", "other"),
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

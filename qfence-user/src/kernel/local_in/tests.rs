//! Real pairs of links, in namespaces of the tests' own.

use std::{
    fs,
    net::IpAddr,
    os::fd::{AsFd as _, OwnedFd},
    panic::{self, AssertUnwindSafe},
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::Duration,
};

use qfence_common::{
    address::from_v4,
    frame::{EXCEPTION, EXCEPTION_MARK, MARK, TAG},
};

use super::{Drop, Method, drops, fences, is_whole, join, join_by, leave, open};
use crate::kernel::{
    by_path,
    device::tcx::{self, Way},
    link_info, offsets,
    testing::{
        GUEST, PORT, Scene, Service, Tap, apart, exists, fresh_netns, index_of, path_of, run, tags,
        wait_until_gone,
    },
};

const V4: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
const OTHER: [u8; 6] = [0x52, 0x54, 0, 0, 0, 2];
/// It differs from the guest's in the bytes that the filter does not tell apart.
const OF_ANOTHER_MAKER: [u8; 6] = [0x56, 0x54, 0, 0, 0, 1];
const UDP: u32 = 17;

fn v6() -> IpAddr {
    "2001:db8::1".parse().unwrap()
}

fn number(mac: [u8; 6]) -> u64 {
    let [a, b, c, d, e, f] = mac;
    u64::from_be_bytes([0, 0, a, b, c, d, e, f])
}

/// Tags what enters by the tap, as long as it lives.
fn tagged(mark: u32, tc_index: u16) -> OwnedFd {
    let ingress = Way(46);
    tcx::attach(&tags(mark, tc_index), index_of("t0"), ingress).unwrap()
}

/// Whether a datagram of the guest reaches the host.
fn reaches(tap: &mut Tap, service: &Service, mac: [u8; 6], host: IpAddr) -> bool {
    tap.send(mac, host, PORT);
    service.hears()
}

#[test]
fn what_enters_by_a_guarded_device_does_not_reach_the_host() {
    apart(|scene| {
        let (mut tap, service) = (Tap::new(), Service::new(PORT));
        let mut member = join(&scene.bpffs, &scene.run, None, "vm").unwrap();
        for host in [V4, v6()] {
            assert!(reaches(&mut tap, &service, GUEST, host), "{host}");
        }
        let device = index_of("t0");
        member.guard(device).unwrap();
        for host in [V4, V4, v6()] {
            assert!(!reaches(&mut tap, &service, GUEST, host), "{host}");
        }
        let drained = member.drain().unwrap();
        let of = |address: IpAddr, count| Drop {
            address: match address {
                IpAddr::V4(address) => from_v4(address.octets()),
                IpAddr::V6(address) => address.octets(),
            },
            protocol: UDP,
            port: PORT,
            device: Some(device),
            count,
        };
        assert_eq!(drained.drops, [of(V4, 2), of(v6(), 1)]);
        assert_eq!(drained.lost, 0);
        assert_eq!(member.drain().unwrap(), super::Drained::default());
        member.unguard(device).unwrap();
        assert!(reaches(&mut tap, &service, GUEST, V4));
        member.leave().unwrap();
    });
}

#[test]
fn what_has_the_address_of_a_guarded_guest_does_not_reach_the_host() {
    apart(|scene| {
        guards_an_address(scene);
        // Then as on a kernel without `bpf_rdonly_cast`, for which the file of offsets has null.
        let cache = scene.run.join(offsets::FILE);
        let known = fs::read_to_string(&cache).unwrap();
        let (before, rest) = known.split_once(CAST).unwrap();
        let end = rest.find([',', '}']).unwrap();
        fs::write(&cache, format!("{before}{CAST}null{}", &rest[end..])).unwrap();
        let offsets = offsets::of_this_kernel(&scene.run).unwrap();
        assert_eq!(offsets.local_in.unwrap().casts, 0);
        guards_an_address(scene);
    });
}

/// The key of `bpf_rdonly_cast` in that file.
const CAST: &str = "\"bpf_rdonly_cast.btf_id__k\":";

fn guards_an_address(scene: &Scene) {
    let (mut tap, service) = (Tap::new(), Service::new(PORT));
    let mut member = join(&scene.bpffs, &scene.run, None, "vm").unwrap();
    member.guard_mac(99, number(GUEST)).unwrap();
    for host in [V4, v6()] {
        assert!(!reaches(&mut tap, &service, GUEST, host), "{host}");
        for mac in [OTHER, OF_ANOTHER_MAKER] {
            assert!(reaches(&mut tap, &service, mac, host), "{host}, {mac:x?}");
        }
    }
    let drained = member.drain().unwrap();
    assert!(drained.drops.iter().all(|drop| drop.device == Some(99)));
    assert_eq!(drained.drops.len(), 2);
    for nobody in [0, 1 << 48, number([1, 0, 0x5e, 0, 0, 1])] {
        assert!(member.guard_mac(99, nobody).is_err(), "{nobody:x}");
    }
    member.leave().unwrap();
    assert!(reaches(&mut tap, &service, GUEST, V4));
}

#[test]
fn a_tag_keeps_a_packet_from_the_host_and_an_exception_does_not() {
    apart(|scene| {
        let (mut tap, service) = (Tap::new(), Service::new(PORT));
        let mut member = join(&scene.bpffs, &scene.run, None, "vm").unwrap();
        let slot = u16::try_from(member.slot()).unwrap();
        let rows = [
            ("nothing", 0, 0, true),
            ("the tag", 0, TAG | slot, false),
            ("both", MARK, TAG | slot, false),
            ("the mark alone", MARK, 0, false),
            ("the mark among others", MARK | 7, 0, false),
            ("other marks", !MARK, 0, true),
            ("an exception", MARK, TAG | EXCEPTION | slot, true),
            ("a tag of another namespace", 0, TAG | (slot + 1), true),
            ("no tag with these bits", 0, EXCEPTION | slot, true),
        ];
        for (what, mark, tc_index, reached) in rows {
            let _tags = tagged(mark, tc_index);
            for host in [V4, v6()] {
                let found = reaches(&mut tap, &service, GUEST, host);
                assert_eq!(found, reached, "{what}, {host}");
            }
        }
        // Also those with a mark alone are counted, once.
        let drops = member.drain().unwrap().drops;
        assert_eq!(drops.iter().map(|drop| drop.count).sum::<u64>(), 8);
        member.guard(index_of("t0")).unwrap();
        let exception = tagged(MARK, TAG | EXCEPTION | slot);
        assert!(reaches(&mut tap, &service, GUEST, V4));
        drop(exception);
        assert!(!reaches(&mut tap, &service, GUEST, V4));
        member.leave().unwrap();
    });
}

#[test]
fn another_process_does_not_count_again() {
    apart(|scene| {
        let mut tap = Tap::new();
        let mut member = join(&scene.bpffs, &scene.run, None, "vm").unwrap();
        member.guard(index_of("t0")).unwrap();
        for _ in 0..3 {
            tap.send(GUEST, V4, PORT);
        }
        assert_eq!(count(&member.drain().unwrap()), 3);
        tap.send(GUEST, V4, PORT);
        let mut other = open(&scene.bpffs, None, "vm").unwrap().unwrap();
        let drained = other.drain().unwrap();
        assert_eq!((drained.drops.len(), drained.lost), (1, 0));
        tap.send(GUEST, V4, PORT);
        assert_eq!(count(&other.drain().unwrap()), 1);
        member.leave().unwrap();
    });
}

#[test]
fn this_kernel_has_links() {
    apart(|_| {
        assert_eq!(super::attempt().unwrap(), Method::Links);
        super::nft::attempt().unwrap();
        assert_eq!(tables(), "");
    });
}

#[test]
fn a_table_of_nftables_does_the_same() {
    apart(|scene| {
        let (mut tap, service) = (Tap::new(), Service::new(PORT));
        run("nft add table inet other");
        let join = |fence| join_by(Method::Nft, &scene.bpffs, &scene.run, None, fence).unwrap();
        let (mut member, other) = (join("vm"), join("other"));
        assert!(is_whole(&scene.bpffs, None).unwrap());
        let device = index_of("t0");
        member.guard_mac(device, number(OTHER)).unwrap();
        for host in [V4, v6()] {
            assert!(reaches(&mut tap, &service, GUEST, host), "{host}");
            assert!(!reaches(&mut tap, &service, OTHER, host), "{host}");
        }
        member.guard(device).unwrap();
        for host in [V4, v6()] {
            assert!(!reaches(&mut tap, &service, GUEST, host), "{host}");
        }
        let rows = [
            ("an exception", EXCEPTION_MARK, true),
            ("both marks", EXCEPTION_MARK | MARK, false),
        ];
        for (what, mark, reached) in rows {
            let _tags = tagged(mark, 0);
            let found = reaches(&mut tap, &service, GUEST, V4);
            assert_eq!(found, reached, "{what}");
        }
        let drained = member.drain().unwrap();
        assert_eq!((drained.drops.len(), drained.lost), (0, 4));
        assert_eq!(count(&member.drain().unwrap()), 0);

        member.unguard(device).unwrap();
        for mac in [GUEST, OTHER] {
            assert!(reaches(&mut tap, &service, mac, V4));
        }
        let marked = tagged(MARK, 0);
        assert!(!reaches(&mut tap, &service, GUEST, V4));
        drop(marked);
        member.guard(device).unwrap();
        member.leave().unwrap();
        assert!(is_whole(&scene.bpffs, None).unwrap());
        assert!(reaches(&mut tap, &service, GUEST, V4));
        other.leave().unwrap();
        assert_eq!(tables(), "table inet other");
    });
}

#[test]
fn a_table_that_was_flushed_is_noticed_and_made_anew() {
    apart(|scene| {
        let join = |fence| join_by(Method::Nft, &scene.bpffs, &scene.run, None, fence);
        let mut member = join("vm").unwrap();
        member.guard(1).unwrap();
        run("nft flush ruleset");
        assert!(!is_whole(&scene.bpffs, None).unwrap());
        assert!(join("other").is_err());
        leave(&scene.bpffs, "vm").unwrap();
        join("other").unwrap();
        assert!(is_whole(&scene.bpffs, None).unwrap());
        leave(&scene.bpffs, "other").unwrap();
        assert_eq!(tables(), "");
    });
}

/// The tables of nftables.
fn tables() -> String {
    let listed = std::process::Command::new("nft")
        .args(["list", "tables"])
        .output();
    String::from_utf8(listed.unwrap().stdout)
        .unwrap()
        .trim()
        .to_owned()
}

fn count(drained: &super::Drained) -> u64 {
    drained.lost + drained.drops.iter().map(|drop| drop.count).sum::<u64>()
}

#[test]
fn a_translated_address_makes_no_difference() {
    apart(|scene| {
        let (mut tap, service) = (Tap::new(), Service::new(PORT));
        let elsewhere = IpAddr::from([203, 0, 113, 5]);
        run("nft add table ip test");
        run("nft add chain ip test pre { type nat hook prerouting priority -100 ; }");
        run("nft add rule ip test pre ip daddr 203.0.113.5 udp dport 80 redirect to :7777");
        let mut sends = || {
            tap.send(GUEST, elsewhere, 80);
            service.hears()
        };
        assert!(sends());
        let mut member = join(&scene.bpffs, &scene.run, None, "vm").unwrap();
        let slot = u16::try_from(member.slot()).unwrap();
        let _tags = tagged(0, TAG | slot);
        assert!(!sends());
        let drops = member.drain().unwrap().drops;
        assert_eq!(drops.len(), 1);
        assert_eq!(drops[0].address, from_v4([192, 0, 2, 1]));
        assert_eq!((drops[0].port, drops[0].count), (PORT, 1));
        member.leave().unwrap();
    });
}

#[test]
fn what_does_not_fit_is_counted() {
    const SENT: u16 = 6000;
    apart(|scene| {
        let mut tap = Tap::new();
        let mut member = join(&scene.bpffs, &scene.run, None, "vm").unwrap();
        member.guard(index_of("t0")).unwrap();
        for port in 1..=SENT {
            tap.send(GUEST, V4, port);
        }
        let mut drained = member.drain().unwrap();
        let deadline = std::time::Instant::now() + Duration::from_secs(5);
        while count(&drained) < SENT.into() && std::time::Instant::now() < deadline {
            let more = member.drain().unwrap();
            drained.lost += more.lost;
            drained.drops.extend(more.drops);
        }
        assert_eq!(count(&drained), u64::from(SENT));
        assert!(drained.lost > 1000, "{}", drained.lost);
        assert!(drained.drops.len() > 500, "{}", drained.drops.len());
        member.leave().unwrap();
    });
}

#[test]
fn a_pair_is_shared_and_goes_with_the_last() {
    apart(|scene| {
        let join = |netns, fence| join(&scene.bpffs, &scene.run, netns, fence).unwrap();
        let whole = || is_whole(&scene.bpffs, None).unwrap();
        assert!(!whole());
        let (first, second) = (join(None, "one"), join(None, "two"));
        assert!(whole());
        assert_ne!(first.slot(), second.slot());
        assert_eq!(join(None, "one").slot(), first.slot());
        let there = fresh_netns();
        let (other, third) = (
            join(Some(there.as_fd()), "two"),
            join(Some(there.as_fd()), "three"),
        );
        assert_eq!(other.slot(), second.slot());
        assert!(![first.slot(), second.slot()].contains(&third.slot()));
        let mut names = fences(&scene.bpffs).unwrap();
        names.sort();
        assert_eq!(names, ["one", "three", "two"]);
        let found = open(&scene.bpffs, None, "two").unwrap().unwrap();
        assert_eq!(found.slot(), second.slot());
        assert!(open(&scene.bpffs, None, "three").unwrap().is_none());

        leave(&scene.bpffs, "two").unwrap();
        assert!(open(&scene.bpffs, None, "two").unwrap().is_none());
        assert!(whole() && is_whole(&scene.bpffs, Some(there.as_fd())).unwrap());
        first.leave().unwrap();
        assert!(!whole());
        third.leave().unwrap();
        let left = fs::read_dir(scene.bpffs.join("qfence-local-in")).unwrap();
        assert_eq!(left.count(), 0);
        leave(&scene.bpffs, "two").unwrap();
    });
}

#[test]
fn what_another_fence_guards_is_refused_and_stays_its_own() {
    for method in [Method::Links, Method::Nft] {
        apart(|scene| {
            let (mut tap, service) = (Tap::new(), Service::new(PORT));
            let join = |fence| join_by(method, &scene.bpffs, &scene.run, None, fence).unwrap();
            let (mut first, mut second) = (join("first"), join("second"));
            assert!(reaches(&mut tap, &service, GUEST, V4), "control");
            let loopback = index_of("lo");
            first.guard(loopback).unwrap();
            first.guard_mac(loopback, number(GUEST)).unwrap();
            for (refused, words) in [
                (
                    second.guard_mac(99, number(GUEST)),
                    "a guest in the fence first has the MAC address 52:54:00:00:00:01 already",
                ),
                (second.guard(loopback), "of the fence first already"),
            ] {
                let error = format!("{:#}", refused.unwrap_err());
                assert!(error.contains(words), "{method:?}: {error}");
            }
            // Its own it can have again, for another device too.
            first.guard(loopback).unwrap();
            first.guard_mac(98, number(GUEST)).unwrap();
            second.guard_mac(99, number(OTHER)).unwrap();
            for mac in [GUEST, OTHER] {
                assert!(!reaches(&mut tap, &service, mac, V4), "{method:?}");
            }
            for fence in ["first", "second"] {
                assert_eq!(drops(&scene.bpffs, fence).unwrap(), 1, "{method:?}");
            }

            second.leave().unwrap();
            assert!(is_whole(&scene.bpffs, None).unwrap());
            assert!(!reaches(&mut tap, &service, GUEST, V4), "{method:?}");
            assert!(reaches(&mut tap, &service, OTHER, V4), "{method:?}");
            // After its end another can have it.
            let mut third = join("third");
            first.leave().unwrap();
            assert!(reaches(&mut tap, &service, GUEST, V4), "{method:?}");
            third.guard_mac(99, number(GUEST)).unwrap();
            assert!(!reaches(&mut tap, &service, GUEST, V4), "{method:?}");
            third.leave().unwrap();
            assert_eq!(tables(), "");
        });
    }
}

#[test]
fn the_network_namespace_is_free_after_the_last() {
    apart(|scene| {
        run("ip link add v0 type veth peer name v1");
        let there = fresh_netns();
        run(&format!("ip link set v1 netns {}", path_of(&there)));
        let member = join(&scene.bpffs, &scene.run, Some(there.as_fd()), "vm").unwrap();
        drop(there);
        assert!(!wait_until_gone("v0", Duration::from_secs(2)));
        member.leave().unwrap();
        assert!(wait_until_gone("v0", Duration::from_secs(20)));
        assert!(!exists("v0"));
    });
}

#[test]
fn those_who_join_at_the_same_time_share_one_pair() {
    apart(|scene| {
        let names: Vec<String> = (0..8).map(|number| format!("vm{number}")).collect();
        let joined = |name| join(&scene.bpffs, &scene.run, None, name).unwrap();
        let members: Vec<_> = thread::scope(|scope| {
            let threads: Vec<_> = names
                .iter()
                .map(|name| scope.spawn(|| joined(name)))
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .collect()
        });
        let slots: std::collections::BTreeSet<u32> =
            members.iter().map(super::Membership::slot).collect();
        assert_eq!(slots.len(), names.len());
        for mut member in members {
            assert!(member.is_whole().unwrap());
            // It is in the pair that is pinned, and not in one that another has replaced.
            assert_eq!(member.drain().unwrap(), super::Drained::default());
            let pinned = super::members(&scene.bpffs).unwrap();
            assert!(pinned.iter().any(|(slot, _)| *slot == member.slot()));
            member.leave().unwrap();
        }
        assert!(fences(&scene.bpffs).unwrap().is_empty());
    });
}

#[test]
fn a_pair_whose_pins_were_removed_judges_on_and_is_not_whole() {
    apart(|scene| {
        let (mut tap, service) = (Tap::new(), Service::new(PORT));
        let mut member = join(&scene.bpffs, &scene.run, None, "vm").unwrap();
        member.guard(index_of("t0")).unwrap();
        assert!(member.is_whole().unwrap());
        for place in fs::read_dir(scene.bpffs.join("qfence-local-in")).unwrap() {
            for link in ["local_in4", "local_in6"] {
                fs::remove_file(place.as_ref().unwrap().path().join(link)).unwrap();
            }
        }
        assert!(!member.is_whole().unwrap());
        for host in [V4, v6()] {
            assert!(!reaches(&mut tap, &service, GUEST, host), "{host}");
        }
        member.leave().unwrap();
    });
}

/// The paths of the links of the only pair.
fn links_of(scene: &Scene) -> Vec<std::path::PathBuf> {
    let parent = scene.bpffs.join("qfence-local-in");
    let place = fs::read_dir(parent).unwrap().next().unwrap().unwrap();
    ["local_in4", "local_in6"]
        .map(|link| place.path().join(link))
        .into()
}

#[test]
fn links_that_were_detached_or_removed_are_put_back() {
    apart(|scene| {
        let (mut tap, service) = (Tap::new(), Service::new(PORT));
        let mut member = join(&scene.bpffs, &scene.run, None, "vm").unwrap();
        member.guard(index_of("t0")).unwrap();
        for path in links_of(scene) {
            link_info::detach(&by_path::open(&path).unwrap()).unwrap();
        }
        assert!(!member.is_whole().unwrap());
        for host in [V4, v6()] {
            assert!(reaches(&mut tap, &service, GUEST, host), "control: {host}");
        }
        member.mend().unwrap();
        assert!(member.is_whole().unwrap() && is_whole(&scene.bpffs, None).unwrap());
        for host in [V4, v6()] {
            assert!(!reaches(&mut tap, &service, GUEST, host), "{host}");
        }
        for path in links_of(scene) {
            fs::remove_file(path).unwrap();
        }
        member.mend().unwrap();
        assert!(is_whole(&scene.bpffs, None).unwrap());
        for host in [V4, v6()] {
            assert!(!reaches(&mut tap, &service, GUEST, host), "{host}");
        }
        assert_eq!(drops(&scene.bpffs, "vm").unwrap(), 4);
        assert_eq!(drops(&scene.bpffs, "other").unwrap(), 0);
        // Nothing of the old links is left.
        leave(&scene.bpffs, "vm").unwrap();
        drop(member);
        assert!(reaches(&mut tap, &service, GUEST, V4));
    });
}

#[test]
fn a_pair_without_maps_is_not_put_back() {
    apart(|scene| {
        let mut member = join(&scene.bpffs, &scene.run, None, "vm").unwrap();
        let parent = scene.bpffs.join("qfence-local-in");
        let place = fs::read_dir(parent).unwrap().next().unwrap().unwrap();
        fs::remove_dir_all(place.path()).unwrap();
        assert!(!member.is_whole().unwrap());
        let error = format!("{:#}", member.mend().unwrap_err());
        assert!(error.contains("were removed"), "{error}");
    });
}

#[test]
fn a_table_that_was_flushed_is_put_back() {
    apart(|scene| {
        let (mut tap, service) = (Tap::new(), Service::new(PORT));
        let join = |fence| join_by(Method::Nft, &scene.bpffs, &scene.run, None, fence);
        let (mut member, mut other) = (join("vm").unwrap(), join("other").unwrap());
        member.guard(index_of("t0")).unwrap();
        other.guard_mac(99, number(OTHER)).unwrap();
        assert!(!reaches(&mut tap, &service, GUEST, V4));
        assert_eq!(drops(&scene.bpffs, "vm").unwrap(), 1);
        assert_eq!(count(&member.drain().unwrap()), 1);
        run("nft flush ruleset");
        assert!(!member.is_whole().unwrap());
        assert!(reaches(&mut tap, &service, GUEST, V4), "control");
        member.mend().unwrap();
        assert!(member.is_whole().unwrap() && other.is_whole().unwrap());
        assert!(!reaches(&mut tap, &service, GUEST, V4));
        assert!(!reaches(&mut tap, &service, GUEST, v6()));
        // It counts anew.
        assert_eq!(count(&member.drain().unwrap()), 2);
        member.unguard(index_of("t0")).unwrap();
        assert!(reaches(&mut tap, &service, GUEST, V4));
        assert!(!reaches(&mut tap, &service, OTHER, V4));
        for one in [member, other] {
            one.leave().unwrap();
        }
        assert_eq!(tables(), "");
    });
}

#[test]
fn a_table_that_was_disarmed_is_noticed_and_put_back() {
    apart(|scene| {
        let (mut tap, service) = (Tap::new(), Service::new(PORT));
        let mut member = join_by(Method::Nft, &scene.bpffs, &scene.run, None, "vm").unwrap();
        member.guard(index_of("t0")).unwrap();
        for damage in [
            "nft flush chain inet qfence input",
            "nft insert rule inet qfence input accept",
            "nft add table inet qfence { flags dormant; }",
            "nft flush map inet qfence guarded_devices",
            "nft delete element inet qfence guarded_devices { t0 }",
        ] {
            assert!(!reaches(&mut tap, &service, GUEST, V4), "before: {damage}");
            run(damage);
            assert!(reaches(&mut tap, &service, GUEST, V4), "{damage}");
            assert!(!member.is_whole().unwrap(), "{damage}");
            member.mend().unwrap();
            assert!(member.is_whole().unwrap(), "{damage}");
        }
        assert!(!reaches(&mut tap, &service, GUEST, V4));
        member.leave().unwrap();
        assert_eq!(tables(), "");
    });
}

#[test]
fn a_table_is_replaced_without_a_gap() {
    apart(|scene| {
        let (mut tap, service) = (Tap::new(), Service::new(PORT));
        let mut member = join_by(Method::Nft, &scene.bpffs, &scene.run, None, "vm").unwrap();
        assert!(reaches(&mut tap, &service, GUEST, V4), "control");
        member.guard(index_of("t0")).unwrap();
        let is_over = AtomicBool::new(false);
        thread::scope(|scope| {
            let sender = scope.spawn(|| {
                let mut sent = 0;
                while !is_over.load(Relaxed) {
                    tap.send(GUEST, V4, PORT);
                    sent += 1;
                }
                sent
            });
            let replace = || {
                for _ in 0..20 {
                    // It is in force with one more rule, and not whole.
                    run("nft add rule inet qfence input counter");
                    assert!(!member.is_whole().unwrap());
                    member.mend().unwrap();
                }
            };
            let replaced = panic::catch_unwind(AssertUnwindSafe(replace));
            // The sender ends in any case: the scope waits for it.
            is_over.store(true, Relaxed);
            assert!(sender.join().unwrap() > 20);
            replaced.unwrap();
        });
        assert!(!service.hears());
        // The last table counts.
        tap.send(GUEST, V4, PORT);
        assert_ne!(drops(&scene.bpffs, "vm").unwrap(), 0);
        member.leave().unwrap();
    });
}

#[test]
fn a_stand_in_that_a_killed_maker_left_goes_with_the_next_change() {
    apart(|scene| {
        let (mut tap, service) = (Tap::new(), Service::new(PORT));
        let mut member = join_by(Method::Nft, &scene.bpffs, &scene.run, None, "vm").unwrap();
        let leave_behind = || {
            run("nft add table inet qfence-stand-in");
            run("nft add chain inet qfence-stand-in input { type filter hook input priority 1; }");
            run("nft add rule inet qfence-stand-in input iifname t0 drop");
        };
        leave_behind();
        assert!(!reaches(&mut tap, &service, GUEST, V4), "control");
        member.guard(index_of("t0")).unwrap();
        member.unguard(index_of("t0")).unwrap();
        assert!(reaches(&mut tap, &service, GUEST, V4));
        leave_behind();
        member.leave().unwrap();
        assert!(reaches(&mut tap, &service, GUEST, V4));
    });
}

#[test]
fn a_priority_that_is_taken_is_no_obstacle() {
    apart(|scene| {
        let (mut tap, service) = (Tap::new(), Service::new(PORT));
        let others = [Scene::new(), Scene::new()];
        let mut members: Vec<_> = others
            .iter()
            .map(|other| join(&other.bpffs, &other.run, None, "vm").unwrap())
            .collect();
        let mut last = join(&scene.bpffs, &scene.run, None, "vm").unwrap();
        assert!(reaches(&mut tap, &service, GUEST, V4));
        last.guard(index_of("t0")).unwrap();
        assert!(!reaches(&mut tap, &service, GUEST, V4));
        for member in members.drain(..) {
            member.leave().unwrap();
        }
        assert!(!reaches(&mut tap, &service, GUEST, V4));
        last.leave().unwrap();
        assert!(reaches(&mut tap, &service, GUEST, V4));
    });
}

#[test]
fn what_a_killed_maker_left_is_made_anew_and_what_has_members_is_not() {
    apart(|scene| {
        let join = |fence| join(&scene.bpffs, &scene.run, None, fence);
        let parent = scene.bpffs.join("qfence-local-in");
        let member = join("vm").unwrap();
        let place = fs::read_dir(&parent)
            .unwrap()
            .next()
            .unwrap()
            .unwrap()
            .path();
        fs::remove_file(place.join("local_in6")).unwrap();
        assert!(!is_whole(&scene.bpffs, None).unwrap());
        let error = format!("{:#}", join("other").err().unwrap());
        assert!(error.contains("(vm): end them first"), "{error}");
        leave(&scene.bpffs, "vm").unwrap();
        drop(member);
        // Its maker was killed before it had made the links.
        fs::create_dir(&place).unwrap();
        join("vm").unwrap();
        assert!(is_whole(&scene.bpffs, None).unwrap());

        let maps = fs::read_dir(&place)
            .unwrap()
            .map(|entry| entry.unwrap().path());
        let maps = maps.into_iter().find(|path| path.is_dir()).unwrap();
        fs::rename(&maps, place.join("maps-abi-77")).unwrap();
        let error = format!("{:#}", join("vm").err().unwrap());
        assert!(
            error.contains("another version of qfence (ABI 77"),
            "{error}"
        );
        fs::rename(place.join("maps-abi-77"), &maps).unwrap();
        leave(&scene.bpffs, "vm").unwrap();
        assert!(!place.exists());
    });
}

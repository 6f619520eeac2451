//! Real devices, in namespaces of the tests' own.

use std::{fs, os::fd::AsFd as _, path::PathBuf};

use qfence_common::{
    Hook,
    frame::{MARKS_EXCEPTIONS, REVERSED, SERVED},
};

use super::{
    Attached, Method, Wanted, attach, attach_by, classic, detach,
    maps::DeviceMaps,
    pin,
    state::{State, States, state},
    tcx::{self, EGRESS, INGRESS, way},
};
use crate::{
    compile::compile,
    confinement::Enforced,
    kernel::{
        DenyWith, Kernel, LogAllowed, NetworkDevices, Settings, by_path,
        link_info::id_of_program,
        local_in,
        pins::Pins,
        testing::{Scene, Tap, apart, fresh_netns, index_of, netns, passes, path_of, run},
    },
    policy::{Sets, testing::policy},
};

const MAC: u64 = 0x5254_0000_0001;
const ALL_FIRST: States = States {
    frame: State::First,
    frame_out: State::First,
};

/// The programs of a fence without a cgroup, and the directory of its pins.
fn kernel(scene: &Scene, devices: bool) -> (Kernel, PathBuf) {
    let pins = Pins::new(&scene.bpffs);
    pins.prepare().unwrap();
    let pins = pins.create("vm").unwrap();
    let settings = Settings {
        deny: DenyWith::Refused,
        allow_raw: false,
        allow_devices: NetworkDevices::None,
        allow_netns: false,
        node_netns: 0,
        log_allowed: LogAllowed::No,
        cgroup: 0,
        trace: false,
        rules: 1,
        devices,
        lists: false,
    };
    let policy = policy(&[], false);
    let compiled = compile(&policy.rules(), &Sets::default(), false).unwrap();
    let enforced = Enforced::default();
    let loaded = Kernel::load(settings, &scene.run, &pins, &compiled, &enforced, None);
    (loaded.unwrap().0, pins)
}

fn wanted(index: u32, flags: u32) -> Wanted {
    Wanted {
        index,
        slot: 1,
        flags,
        macs: vec![MAC],
        gateways: vec!["192.0.2.1".parse().unwrap()],
    }
}

#[test]
fn a_fenced_device_has_our_programs_first() {
    apart(|scene| {
        let _tap = Tap::new();
        let index = index_of("t0");
        let _earlier = tcx::attach(&passes(), index, way(Hook::Frame, false)).unwrap();
        let (mut kernel, pins) = kernel(scene, true);
        let Attached { frame, frame_out } =
            attach(&mut kernel, None, &wanted(index, 0), &pins).unwrap();
        assert_ne!(frame, frame_out);
        assert_eq!(state(None, &pins, index).unwrap(), ALL_FIRST);

        let foreign = passes();
        let later = tcx::attach(&foreign, index, way(Hook::Frame, false)).unwrap();
        let found = state(None, &pins, index).unwrap();
        let id = id_of_program(&foreign).unwrap();
        assert_eq!(found.frame, State::Behind(vec![id]));
        assert_eq!(found.frame_out, State::First);
        drop(later);
        assert_eq!(state(None, &pins, index).unwrap(), ALL_FIRST);
        // The pins keep it.
        drop(kernel);
        assert_eq!(state(None, &pins, index).unwrap(), ALL_FIRST);
        assert_eq!(DeviceMaps::open(&pins).unwrap().indices().unwrap(), [index]);
    });
}

#[test]
fn a_macvtap_is_fenced_the_other_way_round() {
    apart(|scene| {
        run("ip link add v0 type veth peer name v1");
        run("ip link add m0 link v0 type macvtap mode bridge");
        let index = index_of("m0");
        let (mut kernel, pins) = kernel(scene, true);
        attach(&mut kernel, None, &wanted(index, REVERSED), &pins).unwrap();
        let foreign = passes();
        // The egress of the device is what its guest sends.
        let _later = tcx::attach(&foreign, index, way(Hook::FrameOut, false)).unwrap();
        let found = state(None, &pins, index).unwrap();
        assert!(matches!(found.frame, State::Behind(_)), "{found:?}");
        assert_eq!(found.frame_out, State::First);
    });
}

#[test]
fn a_device_that_is_deleted_or_moved_is_noticed() {
    apart(|scene| {
        run("ip link add v0 type veth peer name v1");
        run("ip link add v2 type veth peer name v3");
        let (deleted, moved) = (index_of("v0"), index_of("v2"));
        let (mut kernel, pins) = kernel(scene, true);
        for index in [deleted, moved] {
            attach(&mut kernel, None, &wanted(index, 0), &pins).unwrap();
            assert_eq!(state(None, &pins, index).unwrap(), ALL_FIRST);
        }
        let both = |state: State| States {
            frame: state.clone(),
            frame_out: state,
        };
        run("ip link del v0");
        assert_eq!(state(None, &pins, deleted).unwrap(), both(State::Severed));
        let there = fresh_netns();
        run(&format!("ip link set v2 netns {}", path_of(&there)));
        assert_eq!(state(None, &pins, moved).unwrap(), both(State::Elsewhere));
        assert_eq!(state(Some(there.as_fd()), &pins, moved).unwrap(), ALL_FIRST);
        for index in [deleted, moved] {
            detach(&mut kernel, index, &pins).unwrap();
            let gone = state(None, &pins, index).unwrap();
            assert_eq!(gone, both(State::Unpinned));
        }
    });
}

#[test]
fn a_device_in_another_namespace_is_fenced_there() {
    apart(|scene| {
        let there = fresh_netns();
        run("ip link add v0 type veth peer name v1");
        let (mut kernel, pins) = kernel(scene, true);
        let index = index_of("v0");
        run(&format!("ip link set v0 netns {}", path_of(&there)));
        let here = netns();
        let error = attach(&mut kernel, Some(here.as_fd()), &wanted(index, 0), &pins);
        assert!(format!("{:#}", error.unwrap_err()).contains("No such device"));
        assert!(!pin(&pins, Hook::Frame, index).exists());
        attach(&mut kernel, Some(there.as_fd()), &wanted(index, 0), &pins).unwrap();
        assert_eq!(state(Some(there.as_fd()), &pins, index).unwrap(), ALL_FIRST);
    });
}

#[test]
fn a_detached_device_is_free_and_forgotten() {
    apart(|scene| {
        let _tap = Tap::new();
        let index = index_of("t0");
        let (mut kernel, pins) = kernel(scene, true);
        attach(&mut kernel, None, &wanted(index, 0), &pins).unwrap();
        let path = pin(&pins, Hook::Frame, index);
        // Another process has the link open.
        let _open = by_path::open(&path).unwrap();
        let maps = DeviceMaps::open(&pins).unwrap();
        assert_eq!(maps.indices().unwrap(), [index]);
        detach(&mut kernel, index, &pins).unwrap();
        assert!(!path.exists());
        assert!(maps.indices().unwrap().is_empty());
        for hook in super::HOOKS {
            let link = tcx::attach(&passes(), index, way(hook, false)).unwrap();
            let link = crate::kernel::link_info::of_device(&link).unwrap();
            let chain = super::state::chain(index, link.attach_type).unwrap();
            assert_eq!(chain.len(), 1, "{hook:?}");
        }
        // And it can be fenced again.
        attach(&mut kernel, None, &wanted(index, 0), &pins).unwrap();
        assert_eq!(state(None, &pins, index).unwrap(), ALL_FIRST);
    });
}

#[test]
fn filters_of_traffic_control_do_the_same() {
    apart(|scene| {
        let _tap = Tap::new();
        run("ip link add v0 type veth peer name v1");
        let (tap, veth) = (index_of("t0"), index_of("v0"));
        let (mut kernel, pins) = kernel(scene, true);
        let foreign = passes();
        let id = id_of_program(&foreign).unwrap();
        let path = scene.bpffs.join("foreign");
        by_path::pin(&foreign, &path).unwrap();
        let bpf = format!("bpf da object-pinned {}", path.display());
        // Somebody has a clsact and a filter at the veth.
        run("tc qdisc add dev v0 clsact");
        run(&format!(
            "tc filter add dev v0 ingress prio 1 protocol ip {bpf}"
        ));
        let conflict = attach_by(Method::Classic, &mut kernel, None, &wanted(veth, 0), &pins);
        let conflict = format!("{:#}", conflict.unwrap_err());
        assert!(
            conflict.contains("another filter may have its priority"),
            "{conflict}"
        );
        run("tc filter del dev v0 ingress");
        run(&format!(
            "tc filter add dev v0 egress prio 7 protocol ip {bpf}"
        ));
        for (index, flags) in [(tap, 0), (veth, REVERSED)] {
            attach_by(
                Method::Classic,
                &mut kernel,
                None,
                &wanted(index, flags),
                &pins,
            )
            .unwrap();
            assert_eq!(state(None, &pins, index).unwrap(), ALL_FIRST);
        }
        // A later filter of the same priority is before it.
        run(&format!(
            "tc filter add dev t0 ingress prio 1 handle 9 {bpf}"
        ));
        let found = state(None, &pins, tap).unwrap();
        assert_eq!(found.frame, State::Behind(vec![id]));
        assert_eq!(found.frame_out, State::First);
        run("tc filter del dev t0 ingress prio 1 handle 9 bpf");
        assert_eq!(state(None, &pins, tap).unwrap(), ALL_FIRST);

        // The fence ends: the clsact of the tap was ours, and that of the veth is not.
        drop(kernel);
        assert_eq!(state(None, &pins, tap).unwrap(), ALL_FIRST);
        super::unpin_all(&pins).unwrap();
        assert!(!qdiscs("t0").contains("clsact"));
        assert!(qdiscs("v0").contains("clsact"));
        for way in [EGRESS, INGRESS] {
            let ours = |filter: &classic::Filter| filter.is_ours;
            assert!(!classic::chain(veth, way).unwrap().iter().any(ours));
        }
        assert_eq!(classic::chain(veth, EGRESS).unwrap().len(), 1);
        let left = fs::read_dir(&pins).unwrap().count();
        assert_eq!(left, 1, "only the directory of the maps");
    });
}

#[test]
fn a_device_that_loses_its_filters_is_noticed() {
    apart(|scene| {
        run("ip link add v0 type veth peer name v1");
        run("ip link add v2 type veth peer name v3");
        let (deleted, moved) = (index_of("v0"), index_of("v2"));
        let (mut kernel, pins) = kernel(scene, true);
        for index in [deleted, moved] {
            attach_by(Method::Classic, &mut kernel, None, &wanted(index, 0), &pins).unwrap();
        }
        run("ip link del v0");
        let there = fresh_netns();
        run(&format!("ip link set v2 netns {}", path_of(&there)));
        for index in [deleted, moved] {
            assert_eq!(state(None, &pins, index).unwrap().frame, State::Severed);
            detach(&mut kernel, index, &pins).unwrap();
            assert_eq!(state(None, &pins, index).unwrap().frame, State::Unpinned);
        }
    });
}

/// The queueing disciplines of a device.
fn qdiscs(device: &str) -> String {
    let shown = std::process::Command::new("tc")
        .args(["qdisc", "show", "dev", device])
        .output();
    String::from_utf8(shown.unwrap().stdout).unwrap()
}

#[test]
fn the_devices_of_an_ended_fence_are_free() {
    apart(|scene| {
        let _tap = Tap::new();
        let index = index_of("t0");
        let (mut kernel, pins) = kernel(scene, true);
        let member = local_in::join(&scene.bpffs, &scene.run, None, "vm").unwrap();
        attach(&mut kernel, None, &wanted(index, 0), &pins).unwrap();
        drop(kernel);
        let all = Pins::new(&scene.bpffs);
        assert_eq!(all.with_devices().unwrap(), ["vm"]);
        all.let_go("other", false).unwrap();
        assert!(local_in::is_whole(&scene.bpffs, None).unwrap());
        all.let_go("vm", false).unwrap();
        assert!(!pins.exists());
        assert!(all.with_devices().unwrap().is_empty());
        assert!(!local_in::is_whole(&scene.bpffs, None).unwrap());
        for hook in super::HOOKS {
            let chain = super::state::chain(index, hook.row().attach_type).unwrap();
            assert_eq!(chain, []);
        }
        drop(member);
    });
}

#[test]
fn gateways_are_replaced() {
    apart(|scene| {
        let (mut kernel, _pins) = kernel(scene, true);
        let maps = kernel.devices();
        let set = |maps: &mut DeviceMaps, index, addresses: &[&str]| {
            let addresses: Vec<_> = addresses.iter().map(|text| text.parse().unwrap()).collect();
            maps.set_gateways(index, &addresses).unwrap();
        };
        set(maps, 3, &["192.0.2.1", "fe80::1"]);
        set(maps, 4, &["192.0.2.9"]);
        set(maps, 3, &["192.0.2.7"]);
        let mut found = maps.gateways().unwrap();
        found.sort();
        assert_eq!(
            found,
            [
                (3, "192.0.2.7".parse().unwrap()),
                (4, "192.0.2.9".parse().unwrap())
            ]
        );
    });
}

#[test]
fn a_change_of_flags_leaves_the_mark_of_exceptions() {
    apart(|scene| {
        let (mut kernel, _pins) = kernel(scene, true);
        let maps = kernel.devices();
        for (before, after) in [(0, SERVED), (MARKS_EXCEPTIONS, MARKS_EXCEPTIONS | SERVED)] {
            maps.fill(&wanted(3, 0), before).unwrap();
            maps.set_flags(3, 1, SERVED).unwrap();
            assert_eq!(maps.flags(3).unwrap(), Some(after));
        }
        assert_eq!(maps.flags(4).unwrap(), None);
    });
}

#[test]
fn a_fence_without_devices_has_no_room_for_them() {
    apart(|scene| {
        let _tap = Tap::new();
        let index = index_of("t0");
        let (mut kernel, pins) = kernel(scene, false);
        assert!(attach(&mut kernel, None, &wanted(index, 0), &pins).is_err());
        let left = fs::read_dir(&pins).unwrap().count();
        assert_eq!(left, 1, "only the directory of the maps");
    });
}

//! The programs for frames, with a policy and a device.

use std::{
    collections::BTreeSet,
    env,
    net::IpAddr,
    os::fd::{AsFd as _, BorrowedFd},
};

use anyhow::Result;
use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, HashMap, MapData, RingBuf},
    programs::{Program, SchedClassifier, TestRun as _, TestRunOptions},
};
use qfence_common::{
    Change, Event, Halves, Sighting,
    abi::{self, Counter},
    address::from_v4,
    frame::{Device, Gateway, GuestMac, MARK, SERVED, Sent, ethernet::mac_number, place},
};

use super::{
    super::{
        OBJECT, attempts, cast,
        load::{take, try_frames},
        maps::Maps,
        slot::First,
    },
    build::GUEST_MAC,
};
use crate::{
    compile::{Compiled, compile},
    policy::{
        Sets,
        hostset::{host_set, many_set, prefix, single},
        testing,
    },
};

/// The device in whose name the kernel runs the programs: loopback.
pub(super) const DEVICE: u32 = 1;

/// A fence that logs what it lets through.
pub(super) const LOGS: u32 = 1;

/// The number of the fence in its network namespace.
pub(super) const SLOT: u32 = 5;

/// The host's addresses in the guest's network.
pub(super) const GATEWAYS: [&str; 3] = ["192.168.122.1", "fd00:122::1", "fe80::1"];

/// `TCX_NEXT`, `TC_ACT_SHOT` and `TC_ACT_REDIRECT`.
pub(super) const NEXT: i32 = -1;
pub(super) const DROP: i32 = 2;
pub(super) const REDIRECT: i32 = 7;

/// The offset of `mark` in `struct __sk_buff`.
const MARK_AT: usize = 8;

/// The result of a run.
#[derive(Debug)]
pub(super) struct Run {
    /// The return value.
    pub(super) value: i32,
    /// The bytes of the frame afterwards.
    pub(super) frame: Vec<u8>,
    /// The frame's mark afterwards.
    pub(super) mark: u32,
}

impl Run {
    /// Whether the frame goes on, with its mark.
    pub(super) fn goes_on(&self) -> bool {
        assert_eq!(self.mark & MARK != 0, self.value == NEXT, "{self:?}");
        self.value == NEXT
    }
}

pub(super) struct Bed {
    device: u32,
    ebpf: Ebpf,
    maps: Maps,
    events: RingBuf<MapData>,
    devices: Array<MapData, Device>,
    macs: HashMap<MapData, GuestMac, u32>,
    learnt: HashMap<MapData, u32, u64>,
    sent: HashMap<MapData, Sent, u64>,
}

/// If it is set, the programs read the `sk_buff` by the helper, as on kernels before Linux 6.2.
pub(super) const BY_HELPER: &str = "QFENCE_FRAMES_BY_HELPER";

/// Whether the programs read the `sk_buff` by loads.
pub(super) fn casts() -> bool {
    env::var_os(BY_HELPER).is_none()
}

/// An address in the key space of both families.
pub(super) fn halves(address: &str) -> Halves {
    Halves::of(match address.parse().unwrap() {
        IpAddr::V4(v4) => from_v4(v4.octets()),
        IpAddr::V6(v6) => v6.octets(),
    })
}

/// A host with a bridge to the guest, and another network.
fn sets() -> Sets {
    let addresses = [
        "192.168.122.255",
        "10.50.0.1",
        "fd50::1",
        "fe80::5",
        "fd00:122::",
    ];
    let own = addresses.iter().chain(&GATEWAYS);
    Sets {
        host: host_set(own.map(|address| single(address.parse().unwrap()))),
        many: many_set([single("192.168.122.255".parse().unwrap())]),
        nameservers: GATEWAYS
            .iter()
            .map(|address| single(address.parse().unwrap()))
            .collect(),
        gateways: BTreeSet::from([prefix("10.9.0.1".parse().unwrap(), 32).unwrap()]),
        ..Sets::default()
    }
}

/// The profile `host` with these rules before it.
fn compiled(rules: &[String]) -> Compiled {
    let rules: Vec<_> = rules.iter().map(String::as_str).collect();
    let policy = testing::policy(&rules, false);
    compile(&policy.rules(), &sets(), false).unwrap()
}

impl Bed {
    /// The profile `host`, for a guest whose MAC address is known.
    pub(super) fn new() -> Self {
        Self::with(&[], false, 0)
    }

    /// The profile `host` with these rules before it. `deny_with` is for the global of that name.
    pub(super) fn with(rules: &[&str], monitor: bool, deny_with: u32) -> Self {
        Self::of(DEVICE, rules, monitor, deny_with, 0)
    }

    /// As above, for a device. `logs` is for the global that logs what is let through.
    pub(super) fn of(
        device: u32,
        rules: &[&str],
        monitor: bool,
        deny_with: u32,
        logs: u32,
    ) -> Self {
        let (object, offsets) =
            cast::prepare_frames(OBJECT, casts(), try_frames().unwrap()).unwrap();
        assert_eq!(offsets.casts != 0, casts(), "Linux 6.2");
        let mut ebpf = EbpfLoader::new()
            .btf(None)
            .override_global(abi::DENY_FRAMES_WITH, &deny_with, true)
            .override_global(abi::LOG_ALLOWED, &logs, true)
            .override_global(abi::FRAME_OFFSETS, &offsets, true)
            .load(&object)
            .unwrap();
        let mut maps = Maps::new(&mut ebpf).unwrap();
        let (firsts, attempts) = attempts::prepare(&mut ebpf).unwrap();
        let events = take(&mut ebpf, abi::EVENTS_MAP).unwrap();
        let devices = take(&mut ebpf, abi::FRAME_DEVICES_MAP).unwrap();
        let macs = take(&mut ebpf, abi::GUEST_MACS_MAP).unwrap();
        let learnt = take(&mut ebpf, abi::LEARNT_MACS_MAP).unwrap();
        let sent = take(&mut ebpf, abi::HOST_SENT_MAP).unwrap();
        let gateways = take(&mut ebpf, abi::GATEWAYS_MAP).unwrap();
        let policy = testing::policy(rules, monitor);
        let compiled = compile(&policy.rules(), &sets(), monitor).unwrap();
        maps.publish_with(&compiled, firsts.into()).unwrap();
        for name in ["judge_frame", "note_frame"] {
            classifier(&mut ebpf, name).load().unwrap();
        }
        // The programs name these maps by their descriptors until they are loaded.
        drop(attempts);
        let mut bed = Self {
            device,
            ebpf,
            maps,
            events: events.try_into().unwrap(),
            devices: devices.try_into().unwrap(),
            macs: macs.try_into().unwrap(),
            learnt: learnt.try_into().unwrap(),
            sent: sent.try_into().unwrap(),
        };
        bed.set_device(SERVED);
        bed.add_mac(GUEST_MAC);
        let mut gateways: HashMap<_, Gateway, u32> = gateways.try_into().unwrap();
        for address in GATEWAYS {
            let gateway = Gateway {
                address: halves(address),
                device,
                reserved: 0,
            };
            gateways.insert(gateway, 0, 0).unwrap();
        }
        bed
    }

    pub(super) fn set_device(&mut self, flags: u32) {
        let device = Device {
            index: self.device,
            slot: SLOT,
            flags,
            ..Device::default()
        };
        self.devices.set(place(self.device, 0), device, 0).unwrap();
    }

    /// Sets the MAC address that is looked at first.
    pub(super) fn set_first_mac(&mut self, address: [u8; 6]) {
        let place = place(self.device, 0);
        let device = Device {
            mac: mac_number(address),
            ..self.devices.get(&place, 0).unwrap()
        };
        self.devices.set(place, device, 0).unwrap();
    }

    /// The MAC address that is looked at first, as a number; 0 if there is none.
    pub(super) fn first_mac(&self) -> u64 {
        self.devices.get(&place(self.device, 0), 0).unwrap().mac
    }

    /// Moves the entry of the device to another one of its places, and gives the place before it to another device.
    pub(super) fn move_device(&mut self, step: u32) {
        let first = place(self.device, 0);
        let device = self.devices.get(&first, 0).unwrap();
        let other = Device {
            index: self.device + 64,
            ..device
        };
        self.devices.set(first, other, 0).unwrap();
        self.devices
            .set(place(self.device, step), device, 0)
            .unwrap();
    }

    pub(super) fn remove_device(&mut self) {
        let free = Device::default();
        self.devices.set(place(self.device, 0), free, 0).unwrap();
    }

    fn mac(&self, address: [u8; 6]) -> GuestMac {
        GuestMac {
            device: self.device,
            reserved: 0,
            mac: mac_number(address),
        }
    }

    pub(super) fn add_mac(&mut self, address: [u8; 6]) {
        self.macs.insert(self.mac(address), 0, 0).unwrap();
    }

    pub(super) fn remove_mac(&mut self, address: [u8; 6]) {
        self.macs.remove(&self.mac(address)).unwrap();
    }

    pub(super) fn learnt(&self) -> Option<u64> {
        self.learnt.get(&self.device, 0).ok()
    }

    /// The program for frames from the guest.
    pub(super) fn program(&mut self) -> BorrowedFd<'_> {
        classifier(&mut self.ebpf, "judge_frame")
            .fd()
            .unwrap()
            .as_fd()
    }

    /// Judges a frame from the guest.
    pub(super) fn judge(&mut self, frame: &[u8]) -> Run {
        self.run("judge_frame", frame)
    }

    /// Notes a frame to the guest.
    pub(super) fn note(&mut self, frame: &[u8]) {
        let run = self.run("note_frame", frame);
        assert_eq!((run.value, run.mark), (NEXT, 0));
        assert_eq!(run.frame, frame);
    }

    fn run(&mut self, program: &str, frame: &[u8]) -> Run {
        let (mut bytes, mut context) = (vec![0; 65536], [0; 192]);
        let program = classifier(&mut self.ebpf, program);
        let options = TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut bytes),
            ctx_out: Some(&mut context),
            ..TestRunOptions::default()
        };
        let result = program.test_run(options).unwrap();
        bytes.truncate(result.data_size_out.try_into().unwrap());
        let mark = context[MARK_AT..MARK_AT + 4].try_into().unwrap();
        Run {
            value: result.return_value.cast_signed(),
            frame: bytes,
            mark: u32::from_ne_bytes(mark),
        }
    }

    /// The events since the last call.
    pub(super) fn events(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        while let Some(bytes) = self.events.next() {
            events.push(Event::from_bytes(&bytes).unwrap());
        }
        events
    }

    /// The rule of the only event since the last call.
    pub(super) fn rule(&mut self) -> u32 {
        let events = self.events();
        assert_eq!(events.len(), 1, "{events:?}");
        events[0].key.rule
    }

    pub(super) fn counter(&self, counter: Counter) -> u64 {
        let values = self.maps.counters.get(&(counter as u32), 0).unwrap();
        values.iter().sum()
    }

    /// Publishes the profile `host` with these rules before it. Returns the number of its nodes.
    pub(super) fn publish(&mut self, rules: &[String]) -> usize {
        self.try_publish(rules).unwrap()
    }

    pub(super) fn try_publish(&mut self, rules: &[String]) -> Result<usize> {
        let compiled = compiled(rules);
        self.maps.publish(&compiled)?;
        Ok(compiled.nodes.len())
    }

    /// Publishes such a policy, but its first nodes. They are returned.
    pub(super) fn publish_half(&mut self, rules: &[String]) -> First {
        self.maps.publish_half(&compiled(rules)).unwrap()
    }

    pub(super) fn withdraw(&mut self) {
        self.maps.withdraw().unwrap();
    }

    pub(super) fn seal(&mut self) {
        self.maps.seal().unwrap();
    }

    pub(super) fn maps(&self) -> &Maps {
        &self.maps
    }

    pub(super) fn maps_mut(&mut self) -> &mut Maps {
        &mut self.maps
    }

    pub(super) fn sightings(&self) -> Vec<(Sighting, u64)> {
        self.maps.sightings().unwrap()
    }

    /// Makes all notes on what the host sent older.
    pub(super) fn age_notes(&mut self, by_ns: u64) {
        let notes: Vec<_> = self.sent.iter().map(Result::unwrap).collect();
        assert!(!notes.is_empty());
        for (sent, then) in notes {
            self.sent.insert(sent, then.wrapping_sub(by_ns), 0).unwrap();
        }
    }

    /// Notes a change of the policy at this time, after which existing connections are judged or not.
    pub(super) fn change_at(&mut self, changed_ns: u64, judges_standing: bool) {
        let change = Change {
            changed_ns,
            judges_standing: judges_standing.into(),
            reserved: 0,
        };
        self.maps.change.set(0, change, 0).unwrap();
    }
}

fn classifier<'a>(ebpf: &'a mut Ebpf, name: &str) -> &'a mut SchedClassifier {
    match ebpf.program_mut(name) {
        Some(Program::SchedClassifier(program)) => program,
        other => panic!("{name} is {other:?}"),
    }
}

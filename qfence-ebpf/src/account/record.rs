//! Counts and records refusals.

use aya_ebpf::helpers::bpf_ktime_get_boot_ns;
use qfence_common::{
    AttemptKey, Event, Halves, NamedEvent, Origin, Repeats, Sighting, abi::Counter, unix::Name,
};

use crate::{
    account::{
        PROCEED, REJECT,
        count::{add, count},
    },
    maps::{
        EVENTS, MORE_REPEATS, REPEATS, SIGHTINGS,
        inner::{Inner as _, Sightings, WholeKey},
        marks,
    },
    subject::author::Author,
};

/// A refusal and its reason.
pub(crate) struct Refusal {
    pub(crate) address: Halves,
    pub(crate) port: u32,
    pub(crate) protocol: u32,
    pub(crate) hook: u32,
    pub(crate) rule: u32,
    /// The source address; zero if unknown.
    pub(crate) source: Halves,
    pub(crate) source_port: u32,
}

/// Refuses the use of a socket or a device: records and counts the refusal. If the policy is only monitored, it marks
/// the fence instead of refusing, because this verdict lasts as long as the socket or the device. Returns the return
/// value of the hook.
#[inline(always)]
pub(crate) fn refuse(what: &Refusal, who: &Author, monitored: bool) -> i32 {
    record(what, who, monitored);
    if !monitored {
        return REJECT;
    }
    marks::note_monitored(what.hook);
    PROCEED
}

/// Records an attempt, and counts it.
#[inline(always)]
pub(crate) fn record(what: &Refusal, who: &Author, monitored: bool) {
    record_with(what, who, monitored, || 0);
}

/// Records an attempt, and counts it. `flags` finds more flags for [`Origin::flags`]; it runs only for the first attempt
/// of a key.
#[inline(always)]
pub(crate) fn record_with(
    what: &Refusal,
    who: &Author,
    monitored: bool,
    flags: impl FnOnce() -> u32,
) {
    let send = |event: &Event| EVENTS.output(event, 0).is_ok();
    count(tell(&mut event(what, who, monitored), flags, send));
    count(if monitored {
        Counter::Monitored
    } else {
        Counter::Refused
    });
}

/// Records a refused attempt whose subject is a name, and counts it. Its first event has the name.
#[inline(always)]
pub(crate) fn record_named(what: &Refusal, who: &Author, name: &Name) {
    let send = |event: &Event| {
        let Some(mut room) = EVENTS.reserve_untyped::<NamedEvent>(0) else {
            return false;
        };
        let place = room.as_mut_ptr();
        // SAFETY: the room has the size of this type.
        let to_event = unsafe { &raw mut (*place).event };
        // SAFETY: as above.
        let to_name = unsafe { &raw mut (*place).name };
        // SAFETY: the room has the size and the alignment of this type.
        unsafe { to_event.write(*event) };
        // SAFETY: as above.
        unsafe { to_name.write(*name) };
        room.submit(0);
        true
    };
    count(tell(&mut event(what, who, false), || 0, send));
    count(Counter::Refused);
}

/// Keeps a sighting: a destination that monitor mode lets through, for `policy suggest`. If there is no map or no room
/// for it, the sighting is counted only.
#[inline(always)]
pub(crate) fn sight(what: &Refusal) {
    let sighting = Sighting {
        address: what.address,
        port: what.port,
        protocol: what.protocol,
    };
    if !SIGHTINGS
        .get(0)
        .is_some_and(|sightings| is_kept(sightings, &sighting))
    {
        count(Counter::Unlisted);
    }
}

#[inline(always)]
fn is_kept(sightings: &Sightings, sighting: &Sighting) -> bool {
    let value = sightings.find(sighting);
    if value.is_null() {
        return sightings.add(sighting, &1);
    }
    add(value, 1);
    true
}

#[inline(always)]
fn event(what: &Refusal, who: &Author, monitored: bool) -> Event {
    // SAFETY: a helper without arguments.
    let boot_ns = unsafe { bpf_ktime_get_boot_ns() };
    Event {
        repeats: Repeats {
            count: 0,
            last_ns: boot_ns,
            origin: Origin {
                boot_ns,
                cgroup: who.cgroup,
                netns: who.netns,
                source: what.source,
                comm: who.comm,
                tid: who.tid,
                uid: who.uid,
                source_port: what.source_port,
                flags: who.flags,
            },
        },
        key: AttemptKey {
            address: what.address,
            pid: who.pid,
            port: what.port,
            protocol: what.protocol,
            hook: what.hook,
            rule: what.rule,
            monitored: u32::from(monitored),
        },
    }
}

/// Sends an event for the first attempt of a key with `send`, and counts the others. Returns the counter to increase; the
/// attempt is lost if there is no room for the key.
#[inline(always)]
fn tell(
    event: &mut Event,
    flags: impl FnOnce() -> u32,
    send: impl FnOnce(&Event) -> bool,
) -> Counter {
    let Some(keys) = REPEATS.get(0) else {
        return Counter::Lost;
    };
    if repeat(keys.find(&event.key), event.repeats.last_ns) {
        return Counter::Repeated;
    }
    event.repeats.origin.flags |= flags();
    let event = &*event;
    let Event { repeats, key } = event;
    if keys.add(key, repeats) && send(event) {
        return Counter::First;
    }
    // The ring is full, or another CPU has just added the key.
    if repeat(keys.find(key), repeats.last_ns) || repeat_more(key, repeats) {
        return Counter::Repeated;
    }
    Counter::Lost
}

/// Counts an attempt of a key that does not fit in REPEATS. Returns false if there is no room for it in MORE_REPEATS
/// either.
///
/// Before Linux 6.13 a trie ignores `BPF_NOEXIST` and replaces an existing entry. If two CPUs add the same key at the
/// same moment, the count of one of them can be overwritten. No line reports that attempt, so the reader reports it as
/// lost.
#[inline(never)]
fn repeat_more(key: &AttemptKey, repeats: &Repeats) -> bool {
    let Some(more) = MORE_REPEATS.get(0) else {
        return false;
    };
    let whole = WholeKey::new(key);
    if repeat(more.find(&whole), repeats.last_ns) {
        return true;
    }
    more.add(&whole, repeats);
    repeat(more.find(&whole), repeats.last_ns)
}

/// Counts an attempt of a known key. Returns false if the key is not known.
#[inline(always)]
fn repeat(repeats: *mut Repeats, boot_ns: u64) -> bool {
    if repeats.is_null() {
        return false;
    }
    // SAFETY: a value of the map, aligned and alive as long as the program runs.
    let count = unsafe { &raw mut (*repeats).count };
    // SAFETY: as above.
    let last = unsafe { &raw mut (*repeats).last_ns };
    add(count, 1);
    // SAFETY: as above. The value is one word, so other CPUs never see half of it.
    unsafe { last.write_volatile(boot_ns) };
    true
}

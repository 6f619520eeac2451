//! Marks: facts about the fence as a whole that the programs note for its lifetime.

use qfence_common::{Hook, Marks};

use crate::maps::MARKS;

/// Returns the marks. It is never `None`, but the verifier cannot know that.
#[inline(always)]
pub(crate) fn marks<'a>() -> Option<&'a Marks> {
    // SAFETY: null, or the map's value, aligned and alive as long as the program runs.
    unsafe { MARKS.get_ptr(0).and_then(|marks| marks.as_ref()) }
}

/// Sets the mark that `place` selects. Returns false if there are no marks.
#[inline(always)]
pub(crate) fn set(place: impl FnOnce(*mut Marks) -> *mut u32) -> bool {
    let Some(marks) = MARKS.get_ptr_mut(0) else {
        return false;
    };
    // SAFETY: a word of the map's value, which is aligned and alive as long as the program runs. Other CPUs never see
    // half of it.
    unsafe { place(marks).write_volatile(1) };
    true
}

/// Notes that monitor mode let something pass at a hook whose verdict lasts as long as the socket or the device.
#[inline(always)]
pub(crate) fn note_monitored(hook: u32) {
    const SOCKET: u32 = Hook::SockCreate as u32;
    const OPTION: u32 = Hook::Setsockopt as u32;
    const DEVICE: u32 = Hook::Device as u32;
    const RECEIVED: u32 = Hook::FileReceive as u32;
    let _ = match hook {
        // SAFETY: the address of a field of an existing value.
        SOCKET => set(|marks| unsafe { &raw mut (*marks).monitored_sockets }),
        // SAFETY: as above.
        OPTION => set(|marks| unsafe { &raw mut (*marks).monitored_options }),
        // SAFETY: as above.
        DEVICE | RECEIVED => set(|marks| unsafe { &raw mut (*marks).monitored_devices }),
        _ => false,
    };
}

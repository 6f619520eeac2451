//! What the programs note of their fence as a whole, for as long as it lasts.

use qfence_common::{Hook, Marks};

use crate::maps::MARKS;

/// What is noted; `None` never happens, as the verifier does not know.
#[inline(always)]
pub(crate) fn marks<'a>() -> Option<&'a Marks> {
    // SAFETY: null, or the map's value, aligned and alive as long as the program runs.
    unsafe { MARKS.get_ptr(0).and_then(|marks| marks.as_ref()) }
}

/// Sets a mark, of which `place` says where it is; whether it is set now.
#[inline(always)]
pub(crate) fn set(place: impl FnOnce(*mut Marks) -> *mut u32) -> bool {
    let Some(marks) = MARKS.get_ptr_mut(0) else {
        return false;
    };
    // SAFETY: a word of the map's value, which is aligned and alive as long as the program runs; others see it whole.
    unsafe { place(marks).write_volatile(1) };
    true
}

/// Notes that monitor mode alone let something pass at a hook whose verdict stands for as long as the socket or the
/// device does.
#[inline(always)]
pub(crate) fn note_monitored(hook: u32) {
    const SOCKET: u32 = Hook::SockCreate as u32;
    const OPTION: u32 = Hook::Setsockopt as u32;
    const DEVICE: u32 = Hook::Device as u32;
    let _ = match hook {
        // SAFETY: the place of a field of a value that is there.
        SOCKET => set(|marks| unsafe { &raw mut (*marks).monitored_sockets }),
        // SAFETY: as above.
        OPTION => set(|marks| unsafe { &raw mut (*marks).monitored_options }),
        // SAFETY: as above.
        DEVICE => set(|marks| unsafe { &raw mut (*marks).monitored_devices }),
        _ => false,
    };
}

//! The hooks for frames at network devices.

mod answer;
mod from_guest;
mod plain;
mod to_guest;

pub(crate) use from_guest::judge_frame;
pub(crate) use to_guest::note_frame;

/// The return value that lets a frame go on, to the next program at the device (`TCX_NEXT`, `TC_ACT_UNSPEC`).
const NEXT: i32 = -1;

/// The return value that drops a frame (`TCX_DROP`, `TC_ACT_SHOT`).
const DROP: i32 = 2;

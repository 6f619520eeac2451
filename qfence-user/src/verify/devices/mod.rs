//! The frames of a guest with a tap device: a host, its networks, and every kind of frame that the guest may write. `verify`
//! and the tests use them.
//!
//! | file | its one job |
//! |---|---|
//! | [`scene`], [`tools`] | the host, its networks and services; the commands that make them |
//! | [`row`], [`table`] | the frames: what shows that they arrive, and what a fence makes of them |
//! | [`evidence`] | what shows that a frame arrived: the kernel's counters and packet sockets |
//! | [`bed`] | a scene with an open device, on which rows are tried |
//! | [`stage`] | tries all rows for `verify`, in fences with both layers and with either |
//! | [`judge`], [`report`] | the verdict on a row, and the table |

pub mod bed;
pub mod evidence;
pub mod judge;
pub mod report;
pub mod row;
pub mod scene;
pub mod stage;
pub mod table;
pub mod tools;

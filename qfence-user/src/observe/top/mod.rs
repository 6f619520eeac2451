//! A live view of all fences in a terminal.
//!
//! | module | its one job |
//! |---|---|
//! | [`sample`] | the current data of fences, from the kernel and /run |
//! | [`keys`], [`row`] | the keys; a fence with its rates |
//! | [`destinations`] | the most frequent attempts, and the names that led there |
//! | [`model`] | samples and keys to the content of the view: order, filter, destinations, rules |
//! | [`table`] | the table of fences |
//! | [`view`] | the content as lines of a terminal |
//! | [`screen`] | the terminal: keys, signals, restoring its state |

pub mod destinations;
pub mod keys;
pub mod model;
pub mod row;
pub mod sample;
pub mod screen;
pub mod table;
pub mod view;

//! A live view of all fences in a terminal.
//!
//! | module | its one job |
//! |---|---|
//! | [`sample`] | what there is to see now, out of the kernel and /run |
//! | [`keys`], [`row`] | what can be pressed; a fence, and what happens in it a second |
//! | [`model`] | samples and keys to what is shown: order, filter, destinations, rules |
//! | [`table`] | the table of fences |
//! | [`view`] | that as lines of a terminal |
//! | [`screen`] | the terminal: keys, signals, and its state before |

pub mod keys;
pub mod model;
pub mod row;
pub mod sample;
pub mod screen;
pub mod table;
pub mod view;

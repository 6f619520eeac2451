#![expect(dead_code, reason = "soon")]
//! Guests with tap devices: every kind of frame, by a guest that writes them, and real guests.

mod bed;
mod matrix;
mod row;
mod table;

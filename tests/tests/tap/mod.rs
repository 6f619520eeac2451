//! Guests with tap devices: every kind of frame, by a guest that writes them, and real guests.

mod bed;
mod bridge;
mod checksum;
mod forged;
mod garbage;
mod guest;
mod kinds;
mod layers;
mod life;
mod matrix;
mod modes;
mod stack;
mod tun;

use qfence_user::verify::devices::{row, table};

//! Processes that lie about themselves, or make each reader of their /proc files wait. The record stays correct, and the
//! supervisor neither waits nor grows.

mod growth;
mod named;

use anyhow::Result;
use tests::hostile::Hostile;

/// The name by which qfence recognises QEMU.
const QEMU: &str = "qemu-system-x86_64";

fn hostile(name: &str) -> Result<Hostile> {
    Hostile::named(name, env!("CARGO_BIN_EXE_hostile"))
}

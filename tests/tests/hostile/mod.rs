//! Processes that lie about themselves, or have whoever looks at them wait: the record goes on, says what is so, and the
//! supervisor does not grow.

mod growth;
mod named;

use anyhow::Result;
use tests::hostile::Hostile;

/// What QEMU is called, and today's qfence knows it by.
const QEMU: &str = "qemu-system-x86_64";

fn hostile(name: &str) -> Result<Hostile> {
    Hostile::named(name, env!("CARGO_BIN_EXE_hostile"))
}

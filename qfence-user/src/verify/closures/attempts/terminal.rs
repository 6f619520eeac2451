//! Attempts to type into the terminal, whose input a shell outside reads next. It is the standard input.

use nix::{libc, unistd::setsid};

use super::{Tried, raw};
use crate::verify::closures::victims::Victims;

/// The descriptor of the terminal.
const TERMINAL: i32 = libc::STDIN_FILENO;

/// Makes it the controlling terminal of this process, as it is the one of a command in a shell.
fn control() -> Tried {
    setsid()?;
    raw::ioctl(TERMINAL, libc::TIOCSCTTY, 0)
}

/// Puts a character into the input.
pub(crate) fn insert(_: &Victims) -> Tried {
    control()?;
    raw::ioctl(TERMINAL, libc::TIOCSTI, b'x')
}

/// The same, with bits in the request that the kernel ignores.
pub(crate) fn insert_by_high_bits(_: &Victims) -> Tried {
    control()?;
    raw::ioctl(TERMINAL, libc::TIOCSTI | 1 << 32, b'x')
}

/// Pastes the selection (the subcode TIOCL_PASTESEL).
pub(crate) fn paste(_: &Victims) -> Tried {
    control()?;
    raw::ioctl(TERMINAL, libc::TIOCLINUX, 3)
}

//! System calls for keys.

use std::io;

use anyhow::{Result, bail};

use qfence_user::probe::compat::{ADD_KEY, KEYCTL, Low, Manner, REQUEST_KEY, call};

/// `KEY_SPEC_PROCESS_KEYRING` and `KEYCTL_GET_KEYRING_ID` of linux/keyctl.h.
const PROCESS_KEYRING: isize = -2;
const GET_KEYRING_ID: usize = 0;

/// A request to the kernel.
#[derive(Clone, Copy)]
pub(crate) enum Keys {
    /// request_key(2) without call-out: search for a key.
    Search,
    /// request_key(2) with call-out: a program in user space makes the key if there is none.
    CallOut,
    /// add_key(2).
    Add,
    /// keyctl(2), with `KEYCTL_GET_KEYRING_ID`.
    Control,
}

impl Keys {
    pub(crate) fn parse(text: &str) -> Result<Self> {
        Ok(match text {
            "search" => Self::Search,
            "call-out" => Self::CallOut,
            "add" => Self::Add,
            "control" => Self::Control,
            _ => bail!("unknown request for keys: {text}"),
        })
    }

    pub(crate) fn ask(self, manner: Manner) -> io::Result<i64> {
        let mut memory = Low::new()?;
        let mut put = |text: &[u8]| memory.put(text).map(<*mut u8>::addr);
        let (kind, description) = (put(b"user\0")?, put(b"qfence:probe\0")?);
        let payload = put(b"payload\0")?;
        let ring = PROCESS_KEYRING.cast_unsigned();
        let (number, arguments) = match self {
            Self::Search => (REQUEST_KEY, [kind, description, 0, ring, 0]),
            Self::CallOut => (REQUEST_KEY, [kind, description, payload, ring, 0]),
            Self::Add => (ADD_KEY, [kind, description, payload, 7, ring]),
            Self::Control => (KEYCTL, [GET_KEYRING_ID, ring, 1, 0, 0]),
        };
        // SAFETY: the arguments are numbers and zero-terminated strings in low memory.
        unsafe { call(manner, number, arguments) }
    }
}

//! Where the plugin's messages go: a runtime throws away what the plugins that it starts write to standard error.

use crate::base::{
    console::{never_block, notify},
    printable::{printable, shortened},
    system_log,
};

/// The most bytes of a message. Texts that others chose are in it.
const LONGEST: usize = 4096;

/// The ways of a message. None of them waits: a runtime goes on without a plugin that does not answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Voice {
    has_system_log: bool,
    has_standard_error: bool,
}

impl Voice {
    /// The ways that there are. Standard error is none if it could make this process wait.
    pub(super) fn new(has_system_log: bool) -> Self {
        Self {
            has_system_log,
            has_standard_error: never_block().is_ok(),
        }
    }

    /// Shows a message.
    pub(super) fn say(self, message: &str) {
        let message = shortened(message.to_owned(), LONGEST);
        if self.has_standard_error {
            notify(&message);
        }
        self.log(&message);
    }

    /// Writes a message to the system's log only.
    pub(super) fn log(self, message: &str) {
        if self.has_system_log {
            let message = shortened(message.to_owned(), LONGEST);
            // There need not be one.
            let _ = system_log::write(&printable(message.as_bytes()));
        }
    }
}

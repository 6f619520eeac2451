//! Where the plugin's messages go: a runtime throws away what the plugins that it starts write to standard error.

use crate::base::{console::notify, printable::printable, system_log};

/// The ways of a message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Voice {
    /// Whether messages go to the system's log too.
    pub(super) has_system_log: bool,
}

impl Voice {
    /// Shows a message.
    pub(super) fn say(self, message: &str) {
        notify(message);
        self.log(message);
    }

    /// Writes a message to the system's log only.
    pub(super) fn log(self, message: &str) {
        if self.has_system_log {
            // There need not be one.
            let _ = system_log::write(&printable(message.as_bytes()));
        }
    }
}

//! All announcements of some groups, without a filter.

use std::io;

use super::{AddressError, announcements::Group};

/// A subscription to all announcements of some groups.
pub struct Everything(Group);

impl Everything {
    /// Subscribes. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// If the socket cannot be opened.
    pub fn join(groups: impl IntoIterator<Item = u32>) -> io::Result<Self> {
        Ok(Self(Group::join(groups, &[])?))
    }

    /// Waits for an announcement. Queued ones are returned as one. Cancel safe.
    ///
    /// # Errors
    /// If the socket fails.
    pub async fn next(&mut self) -> Result<(), AddressError> {
        self.0.any().await
    }

    /// Drops the queued announcements.
    ///
    /// # Errors
    /// If the socket fails.
    pub fn discard(&mut self) -> Result<(), AddressError> {
        self.0.discard()
    }
}

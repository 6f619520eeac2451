//! A fact of the host that can change.

use std::{error::Error, future::Future};

/// A fact of the host that can be read, and that announces when it may have changed.
pub trait Fact: Send + 'static {
    /// The fact itself.
    type Value: PartialEq + Send + Sync + 'static;
    /// Why it cannot be read or followed.
    type Error: Error + Send + Sync + 'static;

    /// Reads it. What was opened in order to follow it, and has failed since, is opened anew.
    fn read(&mut self) -> impl Future<Output = Result<Self::Value, Self::Error>> + Send;

    /// Waits until it may differ from what was read last. No change is lost if this is not awaited to its end. An
    /// implementation limits how often this returns: each return costs a reading, and work for each subscriber.
    fn changed(&mut self) -> impl Future<Output = Result<(), Self::Error>> + Send;
}

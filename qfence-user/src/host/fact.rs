//! A fact of the host that can change.

use std::{error::Error, future::Future};

/// A fact of the host that can be read, and that reports when it may have changed.
pub trait Fact: Send + 'static {
    /// The value of the fact.
    type Value: PartialEq + Send + Sync + 'static;
    /// Why it cannot be read or followed.
    type Error: Error + Send + Sync + 'static;

    /// Reads it. Sockets and files that failed are opened again.
    fn read(&mut self) -> impl Future<Output = Result<Self::Value, Self::Error>> + Send;

    /// Waits until it may differ from the last reading. Cancel safe. An implementation limits how often this returns,
    /// since each return causes a reading and work for each subscriber.
    fn changed(&mut self) -> impl Future<Output = Result<(), Self::Error>> + Send;
}

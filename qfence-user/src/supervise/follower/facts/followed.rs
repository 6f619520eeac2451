//! The operations that the follower applies to all facts alike, whether it needs a fact now or not.

use std::future::pending;

use futures_util::{FutureExt as _, future::BoxFuture};

use crate::host::{fact::Fact, subscription::Subscription};

/// A fact that is followed, or would be if it were needed.
pub(super) trait Followed: Send {
    /// Subscribes again if the fact is not followed any more.
    fn subscribe_again(&mut self);

    /// Waits until the fact may have changed, or cannot be read any more. Cancel-safe.
    fn changed(&mut self) -> BoxFuture<'_, ()>;

    /// Whether the fact was read after it was last used.
    fn has_news(&self) -> bool;

    /// Reads the fact again. The next use of the reading handles errors.
    fn refresh(&mut self) -> BoxFuture<'_, ()>;
}

impl<F: Fact> Followed for Subscription<F> {
    fn subscribe_again(&mut self) {
        Subscription::subscribe_again(self);
    }

    fn changed(&mut self) -> BoxFuture<'_, ()> {
        Subscription::changed(self).boxed()
    }

    fn has_news(&self) -> bool {
        self.has_changed()
    }

    fn refresh(&mut self) -> BoxFuture<'_, ()> {
        self.fresh().map(drop).boxed()
    }
}

/// `None` for a fact that is not needed.
impl<F: Fact> Followed for Option<Subscription<F>> {
    fn subscribe_again(&mut self) {
        if let Some(subscription) = self {
            subscription.subscribe_again();
        }
    }

    fn changed(&mut self) -> BoxFuture<'_, ()> {
        match self {
            Some(subscription) => Followed::changed(subscription),
            None => pending().boxed(),
        }
    }

    fn has_news(&self) -> bool {
        self.as_ref().is_some_and(Followed::has_news)
    }

    fn refresh(&mut self) -> BoxFuture<'_, ()> {
        match self {
            Some(subscription) => subscription.refresh(),
            None => async {}.boxed(),
        }
    }
}

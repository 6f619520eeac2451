//! The names of the rules that a fence has or had.

use crate::{
    policy::{Policy, names::Names},
    store::{Edition, Store},
};

/// The names of the rules of a running fence, whose policy others can change.
#[derive(Debug)]
pub struct Known {
    names: Names,
    store: Store,
    edition: Option<Edition>,
}

impl Known {
    /// The names of a policy's rules, and of those that come into the store of its fence.
    #[must_use]
    pub fn new(policy: &Policy, store: Store) -> Self {
        Self {
            names: Names::of(policy),
            store,
            edition: None,
        }
    }

    /// The names as they are now.
    pub fn now(&mut self) -> &Names {
        let edition = self.store.edition();
        if edition != self.edition
            && let Ok(Some(stored)) = self.store.read()
        {
            self.names.learn(&stored.policy);
            self.edition = edition;
        }
        &self.names
    }
}

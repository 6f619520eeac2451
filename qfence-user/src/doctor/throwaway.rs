//! A cgroup in which programs are tried.

use std::path::Path;

use anyhow::Result;

use crate::{
    base::{console::notify, locks::Mark, name::derive_name},
    fence::{hierarchy::Hierarchy, place::Place},
};

/// A temporary cgroup among the fences. It has a mark like a fence, so that other commands do not clear it; if this
/// process is killed, they do.
pub(super) struct ThrowAway {
    pub(super) place: Place,
    hierarchy: Hierarchy,
    _mark: Mark,
}

impl ThrowAway {
    pub(super) fn new(hierarchy: &Hierarchy) -> Result<Self> {
        hierarchy.prepare()?;
        let _registry = hierarchy.lock()?;
        let place = hierarchy.place(&derive_name(Path::new("doctor")));
        place.make()?;
        Ok(Self {
            _mark: place.mark()?,
            hierarchy: hierarchy.clone(),
            place,
        })
    }
}

impl Drop for ThrowAway {
    fn drop(&mut self) {
        // Under the lock, commands that list fences do not see a half-removed cgroup. If the lock fails, the cgroup is
        // removed anyway.
        let _registry = self.hierarchy.lock();
        if let Err(error) = self.place.remove() {
            notify(format_args!("{error:#}"));
        }
    }
}

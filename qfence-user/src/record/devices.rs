//! The names of a fence's network devices, by index: the programs know the index alone.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

/// The names, for the supervisor that learns them and the reader that writes them.
#[derive(Clone, Debug, Default)]
pub struct DeviceNames(Arc<Mutex<BTreeMap<u32, Arc<str>>>>);

impl DeviceNames {
    /// Sets the name of a device. Earlier devices remain known, since events may still have their indices.
    pub fn set(&self, index: u32, name: &str) {
        let mut names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        names.insert(index, name.into());
    }

    /// The name of a device; its index with a `#` if it is not known.
    #[must_use]
    pub fn name(&self, index: u32) -> Arc<str> {
        let names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = names.get(&index).cloned();
        known.unwrap_or_else(|| format!("#{index}").into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_named_or_numbered() {
        let names = DeviceNames::default();
        let other = names.clone();
        other.set(7, "t0");
        assert_eq!((&*names.name(7), &*names.name(8)), ("t0", "#8"));
    }
}

//! A fence that the resolver of a test serves.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use qfence_common::resolved::Grant;

use crate::{
    policy::domain::DomainName,
    resolver::{
        Askers, Ends, Guarded, Lookup, NotPublished, Permission, Publisher, Reporter, Rules,
        Transport,
    },
};

/// The rule that allows all names below `allowed.example`, and `open.example` without opening its addresses.
pub(super) const ALLOWS: u32 = 3;

/// The rule that denies other names.
pub(super) const DENIES: u32 = 7;

/// A fence. It guards private addresses.
pub(super) struct Fence {
    pub(super) denies_all: AtomicBool,
    pub(super) knows_nobody: AtomicBool,
    pub(super) room: AtomicUsize,
    /// Whether the kernel fails to put addresses in force.
    pub(super) is_broken: AtomicBool,
    pub(super) published: Mutex<Vec<(IpAddr, Vec<Grant>, Duration)>>,
    pub(super) lookups: Mutex<Vec<Lookup>>,
}

impl Default for Fence {
    fn default() -> Self {
        Self {
            denies_all: AtomicBool::default(),
            knows_nobody: AtomicBool::default(),
            room: AtomicUsize::new(usize::MAX),
            is_broken: AtomicBool::default(),
            published: Mutex::default(),
            lookups: Mutex::default(),
        }
    }
}

impl Fence {
    pub(super) fn ends(fence: &Arc<Self>) -> Ends {
        Ends {
            rules: Arc::clone(fence) as _,
            publisher: Arc::clone(fence) as _,
            guarded: Arc::clone(fence) as _,
            askers: Arc::clone(fence) as _,
            reporter: Arc::clone(fence) as _,
        }
    }

    pub(super) fn grant() -> Grant {
        Grant::new(ALLOWS, 0).unwrap()
    }

    /// The addresses that were put in force.
    pub(super) fn addresses(&self) -> Vec<IpAddr> {
        let published = self.published.lock().unwrap();
        published.iter().map(|(address, ..)| *address).collect()
    }

    /// The last look-up.
    pub(super) fn last(&self) -> Lookup {
        self.lookups.lock().unwrap().last().unwrap().clone()
    }
}

impl Rules for Fence {
    fn permission(&self, name: &DomainName) -> Permission {
        let is_open = name.as_str() == "open.example" || !name.as_str().contains('.');
        let is_allowed = name.as_str().ends_with(".allowed.example");
        if self.denies_all.load(Ordering::Relaxed) || !(is_open || is_allowed) {
            return Permission::Denied { rule: DENIES };
        }
        let grants = if is_open { vec![] } else { vec![Self::grant()] };
        Permission::Allowed {
            rule: ALLOWS,
            grants,
        }
    }
}

impl Publisher for Fence {
    fn publish(
        &self,
        address: IpAddr,
        grants: &[Grant],
        lasts: Duration,
    ) -> Result<(), NotPublished> {
        if self.is_broken.load(Ordering::Relaxed) {
            return Err(NotPublished::Failed);
        }
        let mut published = self.published.lock().unwrap();
        if published.len() >= self.room.load(Ordering::Relaxed) {
            return Err(NotPublished::Full);
        }
        published.push((address, grants.to_vec(), lasts));
        Ok(())
    }
}

impl Guarded for Fence {
    fn reason(&self, address: IpAddr) -> Option<&'static str> {
        match address {
            IpAddr::V4(v4) if v4.is_loopback() => Some("loopback"),
            IpAddr::V4(v4) if v4.is_private() => Some("lan"),
            IpAddr::V6(v6) if v6.is_loopback() => Some("loopback"),
            _ => None,
        }
    }
}

impl Askers for Fence {
    fn is_of_fence(&self, _: SocketAddr, _: Transport) -> bool {
        !self.knows_nobody.load(Ordering::Relaxed)
    }
}

impl Reporter for Fence {
    fn lookup(&self, lookup: Lookup) {
        self.lookups.lock().unwrap().push(lookup);
    }
}

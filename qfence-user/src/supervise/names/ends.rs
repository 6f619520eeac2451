//! What the resolver needs of its fence: the rules in force, the kernel's maps, the record.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, Result};
use qfence_common::{Protocol, resolved::Grant};

use super::tally::Tally;
use crate::{
    compile::named::{self, Lookups},
    kernel::{
        self,
        resolved::{Addresses, NotPut},
    },
    policy::{
        domain::DomainName,
        guard::{Guard, Struck},
        rule::Rule,
    },
    record::{
        lookups::{LookedUp, LookupSender},
        resolved_names::ResolvedNames,
    },
    resolver::{
        Askers, Guarded, Lookup, NotPublished, Permission, Publisher, Reporter, Rules, Transport,
        Verdict,
    },
    stored_policy::{FileVersion, PolicyFile},
};

/// What the supervisor has and the resolver asks.
pub(super) struct Shared {
    /// What the policy in force says of names.
    pub(super) view: Mutex<Arc<View>>,
    /// The stored policy, from which it is read again when another one is in force.
    pub(super) policy_file: PolicyFile,
    /// Whether names may lead to private networks.
    pub(super) allows_private: bool,
    /// The addresses in force.
    pub(super) resolved: Mutex<Addresses>,
    /// Whether addresses may be in force that the policy in force does not allow any more.
    pub(super) must_retain: AtomicBool,
    /// Why the last address was not put in force, if the kernel failed to.
    pub(super) unpublished: Mutex<Option<String>>,
    pub(super) askers: kernel::Askers,
    /// The names behind addresses.
    pub(super) names: ResolvedNames,
    pub(super) record: LookupSender,
    /// Whether look-ups that are allowed are on record.
    pub(super) logs_allowed: bool,
    /// What was looked up so far, in numbers.
    pub(super) tally: Tally,
}

/// What the policy in force says of names and of their addresses.
pub(super) struct View {
    lookups: Lookups,
    guard: Guard,
    /// Whether the policy only monitors: then each name is resolved.
    monitors: bool,
    version: Option<FileVersion>,
    /// The number of the policy.
    generation: u64,
    /// Its rules, by number.
    rules: BTreeMap<u32, Rule>,
}

impl View {
    /// That of the stored policy.
    ///
    /// # Errors
    /// If there is none, or it cannot be read.
    pub(super) fn read(file: &PolicyFile, allows_private: bool) -> Result<Self> {
        // A policy that is stored meanwhile has another version, and is read at the next look-up.
        let version = file.file_version();
        let stored = file.read()?.context("the fence has no policy")?;
        let rules = stored.policy.rules();
        Ok(Self {
            lookups: Lookups::new(&rules),
            guard: Guard::new(&stored.sets, allows_private),
            monitors: stored.policy.monitor,
            version,
            generation: stored.generation,
            rules: rules.into_iter().map(|of| (of.number, of.rule)).collect(),
        })
    }

    /// Whether a rule number is another rule's than in an earlier policy.
    fn has_another(&self, number: u32, before: &Self) -> bool {
        let now = self.rules.get(&number);
        now.is_some() && now != before.rules.get(&number)
    }

    /// Whether one of the names that led to an address still has a grant.
    fn grants(&self, names: &ResolvedNames, address: IpAddr, grant: Grant) -> bool {
        let names = names.of(address);
        self.lookups.grants(names.iter().map(|name| &**name), grant)
    }
}

impl Shared {
    /// What the policy in force says. Another process can have changed it a moment ago: then what that policy does not allow
    /// any more is taken out of force.
    pub(super) fn view(&self) -> Arc<View> {
        Arc::clone(&self.current())
    }

    /// The same. As long as it is locked, no other policy is adopted.
    fn current(&self) -> MutexGuard<'_, Arc<View>> {
        let mut view = self.lock_view();
        if self.policy_file.file_version() != view.version
            // A file that cannot be read is reported by the follower of the policy.
            && let Ok(renewed) = View::read(&self.policy_file, self.allows_private)
        {
            self.tally
                .forget(|number| renewed.has_another(number, &view));
            *view = Arc::new(renewed);
            self.must_retain.store(true, Ordering::Relaxed);
            // The next beat tries again. What an error leaves, the kernel denies if its rule is gone; else it ends by its time.
            let _ = self.retain(&view);
        }
        view
    }

    /// What the policy said when [`Self::view`] was called last.
    fn last_view(&self) -> Arc<View> {
        Arc::clone(&self.lock_view())
    }

    /// The number of the policy by which the addresses of names are in force; `None` as long as some may be that it does not
    /// allow.
    pub(super) fn generation(&self) -> Option<u64> {
        let view = self.lock_view();
        (!self.must_retain.load(Ordering::Relaxed)).then_some(view.generation)
    }

    fn lock_view(&self) -> MutexGuard<'_, Arc<View>> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn retain(&self, view: &View) -> Result<()> {
        self.resolved()
            .retain(|address, grant| {
                view.guard.reason(address).is_none() && view.grants(&self.names, address, grant)
            })
            .context(
                "cannot take addresses of names out of force that the policy does not allow",
            )?;
        self.must_retain.store(false, Ordering::Relaxed);
        Ok(())
    }

    /// Takes out of force what the policy does not allow any more, if that failed before.
    ///
    /// # Errors
    /// If it fails again.
    pub(super) fn retain_again(&self) -> Result<()> {
        // No other thread adopts another policy meanwhile.
        let view = self.lock_view();
        match self.must_retain.load(Ordering::Relaxed) {
            true => self.retain(&view),
            false => Ok(()),
        }
    }

    pub(super) fn resolved(&self) -> MutexGuard<'_, Addresses> {
        self.resolved.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why the last address was not put in force, if the kernel failed to.
    pub(super) fn unpublished(&self) -> MutexGuard<'_, Option<String>> {
        self.unpublished
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// The result of a look-up, one of [`RESULTS`](crate::stored_policy::resolved_names::RESULTS).
    fn result(&self, lookup: &Lookup) -> &'static str {
        let view = self.last_view();
        let is_denied = || {
            let name = DomainName::of_wire(&lookup.name);
            name.is_ok_and(|name| !view.lookups.permission(&name).is_allowed)
        };
        match lookup.verdict {
            Verdict::Denied => "denied",
            Verdict::Unpublished => "error",
            Verdict::Full => "full",
            Verdict::Failed => "failed",
            Verdict::Allowed if view.monitors && is_denied() => "would-deny",
            Verdict::Allowed if !lookup.struck.is_empty() => "struck",
            Verdict::Allowed => "allowed",
        }
    }
}

impl Rules for Shared {
    fn permission(&self, name: &DomainName) -> Permission {
        let view = self.view();
        let named::Permission {
            rule,
            is_allowed,
            grants,
        } = view.lookups.permission(name);
        if is_allowed || view.monitors {
            Permission::Allowed { rule, grants }
        } else {
            Permission::Denied { rule }
        }
    }
}

impl Publisher for Shared {
    fn publish(
        &self,
        name: &DomainName,
        address: IpAddr,
        grants: &[Grant],
        lasts: Duration,
    ) -> Result<(), NotPublished> {
        // Another process can have changed the policy after the rules were asked. It stays locked until these grants are in
        // force, so whoever adopts another policy afterwards finds them, and takes them back.
        let view = self.current();
        let granted = view.lookups.permission(name).grants;
        let grants: Vec<Grant> = grants
            .iter()
            .copied()
            .filter(|of| granted.contains(of))
            .collect();
        // The same holds for the addresses that no name opens.
        if grants.is_empty() || view.guard.reason(address).is_some() {
            return Ok(());
        }
        // Before they are in force: those of an address without names are taken back.
        self.names.add(&[address], name.as_str());
        let put = self.resolved().put(address, &grants, lasts);
        let (result, error) = match put {
            Ok(()) => {
                self.names.begins(address);
                (Ok(()), None)
            }
            // There is no error to report: the look-up is on record.
            Err(NotPut::Full) => return Err(NotPublished::Full),
            Err(NotPut::Failed(error)) => (Err(NotPublished::Failed), Some(format!("{error:#}"))),
        };
        *self.unpublished() = error;
        result
    }
}

impl Guarded for Shared {
    fn reason(&self, address: IpAddr) -> Option<&'static str> {
        // It is asked for each address of an answer, after the rules were.
        self.last_view().guard.reason(address)
    }
}

impl Askers for Shared {
    fn is_of_fence(&self, source: SocketAddr, transport: Transport) -> bool {
        let protocol = match transport {
            Transport::Udp => Protocol::UDP,
            Transport::Tcp => Protocol::TCP,
        };
        // What cannot be read is not the fence's.
        self.askers.is_of_fence(source, protocol).unwrap_or(false)
    }
}

impl Reporter for Shared {
    fn lookup(&self, lookup: Lookup) {
        self.names.add(&lookup.addresses, &lookup.name);
        let verdict = self.result(&lookup);
        let struck = lookup.struck.iter().map(|(address, set)| Struck {
            address: *address,
            set: (*set).into(),
        });
        let looked_up = LookedUp {
            verdict,
            struck: struck.collect(),
            name: lookup.name,
            kind: lookup.kind,
            rule: lookup.rule,
            addresses: lookup.addresses,
            error: lookup.error,
        };
        self.tally.take(&looked_up);
        if verdict != "allowed" || self.logs_allowed {
            self.record.send(looked_up);
        }
    }
}

//! The names of a fence: runs its resolver, and keeps the addresses of names in force only as long as they are to be.

mod ends;
mod store;
mod tally;
#[cfg(test)]
mod tests;
mod trouble;

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Instant,
};

use anyhow::{Context as _, Result, bail, ensure};
use qfence_common::resolved::Resolver;
use tokio::sync::watch;

use self::{
    ends::{Shared, View},
    store::Store,
    tally::Tally,
    trouble::Trouble,
};
use crate::{
    base::{clock::since_boot, message_queue::MessageQueue},
    host::{
        nameservers::{self, ResolvConf},
        subscription::Subscription,
        watcher::Watcher,
    },
    kernel::{Askers, resolved::Addresses, within::cookie_of},
    record::{
        line::{at, boot_time},
        lookups::LookupSender,
        resolved_names::ResolvedNames,
    },
    resolver::{self, Endpoint, Ends, Handle, Nameservers, Sockets},
    stored_policy::{
        PolicyFile,
        resolved_names::{NamesFile, StoredNames},
    },
    supervise::recurring_error::RecurringError,
};

/// The port of nameservers.
const DNS: u16 = 53;

/// The sockets of a resolver that does not run yet. They exist before the fence, whose programs have their address.
#[derive(Debug)]
pub struct Prepared {
    sockets: Sockets,
    resolver: Resolver,
    allows_private: bool,
}

/// What a resolver works with.
pub struct Given {
    /// The directory of the fence's links.
    pub pins: PathBuf,
    /// The sources of the queries that programs have led to the resolver.
    pub askers: Askers,
    /// The stored policy of the fence.
    pub policy_file: PolicyFile,
    /// The file of names behind addresses.
    pub names_file: NamesFile,
    /// Where look-ups are recorded.
    pub record: LookupSender,
    /// The names behind addresses, for the record.
    pub names: ResolvedNames,
    /// Whether look-ups that are allowed are on record.
    pub logs_allowed: bool,
}

/// The running resolver of a fence.
pub struct Names {
    shared: Arc<Shared>,
    handle: Handle,
    /// The nameservers that the resolver asks.
    asked: watch::Sender<Nameservers>,
    nameservers: Subscription<ResolvConf>,
    /// What resolv.conf says.
    found: Arc<nameservers::Nameservers>,
    store: Store,
    said: Said,
}

/// The errors that are reported once, until they are resolved.
#[derive(Default)]
struct Said {
    ended: RecurringError,
    writing: RecurringError,
    sweeping: RecurringError,
    retaining: RecurringError,
    publishing: RecurringError,
    keeping: RecurringError,
    naming: RecurringError,
    trouble: Trouble,
}

impl Prepared {
    /// Makes the sockets in this thread's network namespace. With `allows_private`, names may lead to private networks.
    ///
    /// # Errors
    /// If they cannot be made, or the kernel does not tell the namespace (before Linux 5.14).
    pub fn bind(allows_private: bool) -> Result<Self> {
        let sockets =
            Sockets::bind().context("cannot make the sockets of the resolver of names")?;
        let endpoint = sockets.endpoint();
        let netns = cookie_of(None)
            .context("rules by name need Linux 5.14, which tells network namespaces apart")?;
        Ok(Self {
            sockets,
            resolver: Resolver {
                netns,
                v4: endpoint.v4.to_bits(),
                port: endpoint.port,
                has_v6: endpoint.has_v6.into(),
            },
            allows_private,
        })
    }

    /// Where the programs lead queries.
    #[must_use]
    pub fn resolver(&self) -> Resolver {
        self.resolver
    }

    /// Starts the resolver. The policy of the fence must be stored. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// If the maps or the nameservers cannot be read, or its thread cannot be started.
    pub async fn start(self, given: Given, watcher: &Watcher) -> Result<Names> {
        let shared = Arc::new(Shared {
            view: Mutex::new(Arc::new(View::read(
                &given.policy_file,
                self.allows_private,
            )?)),
            policy_file: given.policy_file,
            allows_private: self.allows_private,
            resolved: Mutex::new(Addresses::open(&given.pins)?),
            must_retain: false.into(),
            unpublished: Mutex::default(),
            askers: given.askers,
            names: given.names,
            record: given.record,
            logs_allowed: given.logs_allowed,
            tally: Tally::default(),
        });
        let mut nameservers = watcher.nameservers();
        let found = nameservers.reading().await?;
        let ends = Ends {
            rules: shared.clone(),
            publisher: shared.clone(),
            guarded: shared.clone(),
            askers: shared.clone(),
            reporter: shared.clone(),
        };
        let (asked, received) = watch::channel(asked(&found));
        let handle = resolver::Resolver::start(self.sockets, ends, received)
            .context("cannot start the resolver of names")?;
        let store = Store::new(
            given.names_file,
            StoredNames {
                resolver: listens_at(handle.endpoint()),
                allows_private: self.allows_private,
                ..StoredNames::default()
            },
        );
        let mut names = Names {
            shared,
            handle,
            asked,
            nameservers,
            found,
            store,
            said: Said::default(),
        };
        // Before the first query: `set` must know the connections to the resolver.
        names
            .keep_up()
            .context("cannot store where the resolver listens")?;
        Ok(names)
    }
}

/// The nameservers that the resolver asks. Without any, that of this machine, as resolv.conf(5) has it.
fn asked(found: &nameservers::Nameservers) -> Nameservers {
    let servers = found.servers.iter();
    let mut servers: Vec<_> = servers.filter_map(|server| server.endpoint(DNS)).collect();
    if found.servers.is_empty() {
        servers.push((Ipv4Addr::LOCALHOST, DNS).into());
    }
    Nameservers {
        servers,
        options: found.options,
    }
}

/// The nameservers that are asked, in words.
fn in_words(found: &nameservers::Nameservers) -> String {
    let servers: Vec<_> = asked(found)
        .servers
        .into_iter()
        .take(Nameservers::USED)
        .map(|server| server.ip().to_string())
        .collect();
    match found.servers.is_empty() {
        true => format!(
            "resolv.conf has no usable nameserver, so {} is asked",
            servers.join(", ")
        ),
        false => format!("asked: {}", servers.join(", ")),
    }
}

/// The addresses at which a resolver listens.
fn listens_at(endpoint: Endpoint) -> Vec<SocketAddr> {
    let Endpoint { v4, port, has_v6 } = endpoint;
    let v6 = has_v6.then(|| SocketAddr::from((Ipv6Addr::LOCALHOST, port)));
    let v4 = SocketAddr::from((v4, port));
    [v4].into_iter().chain(v6).collect()
}

impl Names {
    /// Where the resolver listens, and the nameservers that it asks.
    #[must_use]
    pub fn in_words(&self) -> String {
        let Endpoint { v4, port, .. } = self.handle.endpoint();
        let asked = in_words(&self.found);
        format!("the resolver of the fence, which listens on {v4}:{port} ({asked})")
    }

    /// Waits until the nameservers may have changed; for ever without names. Cancel-safe.
    pub(crate) async fn changed(names: Option<&mut Self>) {
        match names {
            Some(names) => names.nameservers.changed().await,
            None => std::future::pending().await,
        }
    }

    /// Adopts the current nameservers.
    pub(crate) async fn adopt_nameservers(&mut self, messages: &MessageQueue) {
        let found = self.nameservers.reading().await;
        if let Ok(found) = &found {
            self.found = Arc::clone(found);
            self.ask_those_found();
        }
        let known = found
            .map(drop)
            .context("the resolver of the fence goes on with the nameservers that it knows");
        let mended = "the resolver of the fence knows the nameservers again";
        self.said.naming.report(known, mended, messages);
    }

    /// Has the resolver ask the nameservers that resolv.conf has. The interface of a zone can be another one than before.
    fn ask_those_found(&self) {
        let wanted = asked(&self.found);
        self.asked.send_if_modified(|asked| {
            let is_new = *asked != wanted;
            *asked = wanted;
            is_new
        });
    }

    /// Stores the names for other commands.
    fn keep_up(&mut self) -> Result<()> {
        let shared = &self.shared;
        let generation = shared.generation();
        self.store.keep_up(&shared.names, &shared.tally, generation)
    }

    /// To be called once per second: takes out of force what is over, and stores the names for other commands.
    pub(crate) fn tick(&mut self, messages: &MessageQueue) {
        self.nameservers.subscribe_again();
        if self
            .found
            .servers
            .iter()
            .any(|server| server.zone.is_some())
        {
            self.ask_those_found();
        }
        // A change of the policy is adopted even if nothing is looked up.
        let _ = self.shared.view();
        let said = &mut self.said;
        let alive = alive(&self.handle);
        said.ended
            .report(alive, "the resolver runs again", messages);
        let retained = self.shared.retain_again();
        let mended = "addresses of names that the policy does not allow are out of force";
        said.retaining.report(retained, mended, messages);
        let mended = "addresses of names are put in force again";
        let published = published(&self.shared);
        said.publishing.report(published, mended, messages);
        let swept = sweep(&self.shared);
        let mended = "addresses of names are taken out of force again";
        said.sweeping.report(swept, mended, messages);
        let kept = kept(&self.shared.names);
        said.keeping.report(kept, "", messages);
        let reason = self.handle.trouble();
        let asked = in_words(&self.found);
        let trouble = &mut self.said.trouble;
        if let Some(words) = trouble.next(reason.as_deref(), &asked, Instant::now()) {
            messages.notify(words);
        }
        let stored = self.keep_up();
        let mended = "the names behind addresses are stored again";
        self.said.writing.report(stored, mended, messages);
    }
}

fn alive(handle: &Handle) -> Result<()> {
    ensure!(
        handle.is_alive(),
        "error: the resolver of the fence has ended: names are not resolved any more, and what was resolved is allowed until \
         its time is over"
    );
    Ok(())
}

/// Whether the last address that was to come into force did, as far as the kernel is asked.
fn published(shared: &Shared) -> Result<()> {
    match &*shared.unpublished() {
        Some(error) => bail!("error: {error}: look-ups of the fence fail"),
        None => Ok(()),
    }
}

/// Whether all names behind addresses are known.
fn kept(names: &ResolvedNames) -> Result<()> {
    ensure!(
        names.left_out() == 0,
        "warning: the fence looks up so many names that not all are kept: some of the addresses in its record, and in \
         `policy show`, are without all of their names"
    );
    Ok(())
}

/// Takes out of force what is over, and forgets names if room is short.
fn sweep(shared: &Shared) -> Result<()> {
    let mut resolved = shared.resolved();
    let swept = resolved.sweep(since_boot()?, |address, ended_ns| {
        shared.names.ends(address, at(boot_time(), ended_ns));
    });
    if shared.names.is_short_of_room() {
        let in_force: BTreeSet<IpAddr> = resolved.list()?.into_iter().map(|(of, _)| of).collect();
        shared
            .names
            .make_room(|address| in_force.contains(&address));
    }
    swept
}

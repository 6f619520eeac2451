//! The policy in force, which follows the host's addresses and nameservers, and what others change of it.

mod inputs;

use std::{
    future::pending,
    net::IpAddr,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow};
use qfence_common::{Action, LookupPath, Protocol};

use crate::{
    base::message_queue::MessageQueue,
    compile::Compiled,
    host::watcher::Watcher,
    kernel::{Kernel, Maps},
    policy::Policy,
    stored_policy::PolicyFile,
    supervise::recurring_error::RecurringError,
};
use inputs::Inputs;

/// How long somebody else may be about to change the policy without a word. To compile one takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(5);

/// Keeps the kernel's policy true to what it is made from: the supervisor by the programs that it loaded, its
/// stand-in by their pinned maps.
pub struct Follower<P = Kernel> {
    kernel: P,
    inputs: Inputs,
    /// Whether the policy in force is up to date, as far as is known.
    current: bool,
    /// Since when somebody else is about to change the policy.
    busy_since: Option<Instant>,
    said: Said,
}

/// What is said once as long as it fails.
#[derive(Default)]
struct Said {
    following: RecurringError,
    naming: RecurringError,
    updating: RecurringError,
    keeping: RecurringError,
    waiting: RecurringError,
}

/// What came of bringing the policy up to date.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Update {
    /// Nothing had changed.
    Same,
    /// Somebody else is about to change the policy: this is to be tried again.
    Busy,
    /// A policy of this many prefixes is in force now.
    Published {
        /// How many prefixes lead to the host.
        host: usize,
        /// How many nameservers there are.
        nameservers: usize,
    },
}

impl Follower<Kernel> {
    /// Puts a policy in force for the first time, of the fence whose store this is: `load` makes what it is in force
    /// in. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// If the members of the sets cannot be read, or what `load` fails with.
    pub async fn begin(
        policy_file: PolicyFile,
        policy: Policy,
        watcher: &Watcher,
        load: impl FnOnce(&Compiled) -> Result<Kernel>,
    ) -> Result<(Self, Update)> {
        let mut inputs = Inputs::new(policy_file, policy, watcher)?;
        let mut kernel = None;
        let load = |compiled: &Compiled| {
            kernel = Some(load(compiled)?);
            Ok(())
        };
        let update = inputs.renew(load).await?;
        let mut kernel: Kernel = kernel.context("no policy was made")?;
        AsMut::<Maps>::as_mut(&mut kernel).beat()?;
        let follower = Self {
            kernel,
            inputs,
            current: true,
            busy_since: None,
            said: Said::default(),
        };
        Ok((follower, update))
    }

    /// The programs.
    pub fn kernel(&mut self) -> &mut Kernel {
        &mut self.kernel
    }
}

impl Follower<Maps> {
    /// Follows in the place of the supervisor of the fence whose store this is and whose links are in `pins`. It is
    /// not up to date before the first [`Follower::tick`]. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// If the policy or the maps are not there, or the host's addresses cannot be followed.
    pub async fn in_place_of_supervisor(
        policy_file: PolicyFile,
        pins: &Path,
        watcher: &Watcher,
    ) -> Result<Self> {
        let kernel = Maps::open(pins)?;
        let stored = policy_file.read()?.context("the fence has no policy")?;
        let mut inputs = Inputs::new(policy_file, stored.policy, watcher)?;
        inputs.addresses.reading().await?;
        inputs.sets = Some(stored.sets);
        inputs.generation = stored.generation;
        Ok(Self {
            kernel,
            inputs,
            current: false,
            busy_since: None,
            said: Said::default(),
        })
    }
}

impl<P: AsMut<Maps>> Follower<P> {
    /// Takes in the latest members of the sets, and the rules that others may have changed, and publishes the
    /// policy if anything is different.
    ///
    /// # Errors
    /// If they cannot be read or published; what was in force before still is.
    pub async fn update(&mut self) -> Result<Update> {
        let kernel = &mut self.kernel;
        self.inputs
            .renew(|compiled| kernel.as_mut().publish(compiled))
            .await
    }

    /// Whether a connection to there is refused, by the policy that this process published last.
    #[must_use]
    pub fn refuses(&self, address: IpAddr, port: u16) -> bool {
        let Inputs {
            compiled, policy, ..
        } = &self.inputs;
        let verdict = compiled.decide(LookupPath::Address, Protocol::TCP, address, port);
        verdict.action() == Action::Deny && !policy.monitor
    }

    /// Waits until the members of a set may have changed, or cannot be read any more: for [`Follower::keep_up`].
    /// Nothing is lost if it is not awaited to its end.
    pub(crate) async fn changed(&mut self) {
        let inputs = &mut self.inputs;
        let nameservers = async {
            match &mut inputs.nameservers {
                Some(nameservers) => nameservers.changed().await,
                None => pending().await,
            }
        };
        tokio::select! {
            () = inputs.addresses.changed() => (),
            () = nameservers => (),
        }
    }

    /// To be called once a second: tries again what failed, takes in what others changed, and has the programs
    /// know that the host's addresses are followed, if they are.
    pub(crate) async fn tick(&mut self, messages: &mut MessageQueue) {
        self.inputs.subscribe_again();
        // Others compile by what they find in the store, too: that it is true to the host stays the
        // affair of this process.
        let was_changed = self.inputs.policy_file.file_version() != self.inputs.version;
        if !self.current || was_changed || self.inputs.has_news() || self.inputs.unkept.is_some() {
            self.keep_up(messages).await;
        }
        self.beat(messages);
    }

    /// Looks anew, and publishes in any case: somebody else has followed meanwhile, and it is not known how far
    /// they came.
    pub(crate) async fn take_over(&mut self, messages: &mut MessageQueue) {
        // What was announced meanwhile may not have been read yet.
        self.inputs.refresh().await;
        self.inputs.doubted = true;
        self.keep_up(messages).await;
        self.beat(messages);
    }

    /// Takes in what [`Follower::changed`] came to. What fails is said, and tried again by [`Follower::tick`].
    pub(crate) async fn keep_up(&mut self, messages: &mut MessageQueue) {
        let updated = self.update().await;
        let updated = updated.context(
            "the fence does not follow the host's addresses and nameservers; trying again",
        );
        let mended = "the fence follows the host's addresses and nameservers again";
        let updated = self.said.updating.report(updated, mended, messages);
        self.current = updated.is_some_and(|update| update != Update::Busy);
        self.report_waiting(updated == Some(Update::Busy), messages);
        if self.current {
            let followed = self.inputs.why_unfollowed();
            let mended = "the host's addresses are followed again";
            self.said.following.report(followed, mended, messages);
            self.report_naming(messages);
            let kept = self.inputs.why_unkept();
            let mended = "the policy in force is kept again, for other commands to see";
            self.said.keeping.report(kept, mended, messages);
        }
    }

    /// Says why no nameserver is excepted.
    fn report_naming(&mut self, messages: &MessageQueue) {
        if self.inputs.nameservers.is_none() {
            // No rule depends on them any more.
            self.said.naming = RecurringError::default();
            return;
        }
        let path = self.inputs.watcher.resolv_conf().display();
        let mended = format!("{path} can be read again");
        let named = self.inputs.why_unnamed();
        self.said.naming.report(named, mended, messages);
    }

    /// Says who is about to change the policy, and is not done in time.
    fn report_waiting(&mut self, is_busy: bool, messages: &mut MessageQueue) {
        if !is_busy {
            self.busy_since = None;
        }
        let since = is_busy.then(|| *self.busy_since.get_or_insert_with(Instant::now));
        let waited = match since {
            Some(since) if since.elapsed() >= PATIENCE => Err(anyhow!(
                "the fence does not follow the host's addresses and nameservers: {}, which changes the policy, for more \
                 than {} seconds. If it is stopped, continue or end it",
                self.inputs.policy_file.holder(),
                PATIENCE.as_secs()
            )),
            _ => Ok(()),
        };
        let mended = "the fence follows the host's addresses and nameservers again";
        // It is not over as long as somebody else's turn follows.
        if waited.is_err() || !is_busy {
            self.said.waiting.report(waited, mended, messages);
        }
    }

    /// Says nothing to the programs while the policy may be out of date: that is what they are to notice.
    fn beat(&mut self, messages: &mut MessageQueue) {
        if self.current && self.inputs.addresses.is_true() {
            messages.report(self.kernel.as_mut().beat());
        }
    }
}

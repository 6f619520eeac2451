//! Keeps the policy in force up to date: with the host's addresses and nameservers, and with changes by other commands.

mod facts;
mod inputs;

use std::{
    net::IpAddr,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow};
use qfence_common::{Action, LookupPath, Protocol, Verdict};

use crate::{
    base::message_queue::MessageQueue,
    compile::Compiled,
    host::watcher::Watcher,
    kernel::{Kernel, Maps},
    policy::Policy,
    stored_policy::PolicyFile,
    supervise::{
        established::Connection,
        policy_change::{self, ByName},
        recurring_error::RecurringError,
    },
};
use inputs::{Inputs, Lock};

/// The port of nameservers.
const DNS: u16 = 53;

/// How long another process may be changing the policy before this is reported. Compiling a policy takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(5);

/// Keeps the kernel's policy up to date. `P` are the programs that the supervisor loaded, or for its stand-in the
/// pinned maps.
pub struct Follower<P = Kernel> {
    kernel: P,
    inputs: Inputs,
    /// Whether the policy in force is up to date, as far as known.
    current: bool,
    /// The time since which another process is changing the policy.
    busy_since: Option<Instant>,
    said: Said,
}

/// The errors that are reported once, until they are resolved.
#[derive(Default)]
struct Said {
    following: RecurringError,
    naming: RecurringError,
    ambiguous: RecurringError,
    file: RecurringError,
    updating: RecurringError,
    keeping: RecurringError,
    workload: RecurringError,
    routing: RecurringError,
    waiting: RecurringError,
}

/// The result of an update.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Update {
    /// The policy was up to date.
    Same,
    /// Another process is changing the policy. The update must be tried again.
    Busy,
    /// A new policy is in force.
    Published {
        /// The number of prefixes in the set `host`.
        host: usize,
        /// The number of nameservers.
        nameservers: usize,
    },
}

impl Follower<Kernel> {
    /// Publishes the first policy of a fence. `policy_file` is its policy file, and `devices` are the names of its network
    /// devices; `load` loads the programs with the policy. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// If the members of the sets cannot be read, and the errors of `load`.
    pub async fn begin(
        policy_file: PolicyFile,
        policy: Policy,
        watcher: &Watcher,
        devices: Vec<String>,
        load: impl FnOnce(&Compiled) -> Result<Kernel>,
    ) -> Result<(Self, Update)> {
        let mut inputs = Inputs::new(policy_file, policy, watcher, devices)?;
        let mut kernel = None;
        let load = |compiled: &Compiled| {
            kernel = Some(load(compiled)?);
            Ok(())
        };
        let update = inputs.renew(Lock::Wait, load).await?;
        let mut kernel: Kernel = kernel.context("no policy was made")?;
        AsMut::<Maps>::as_mut(&mut kernel).beat()?;
        let mut follower = Self {
            kernel,
            inputs,
            current: true,
            busy_since: None,
            said: Said::default(),
        };
        // The caller reports them.
        follower.said.ambiguous = RecurringError::reported(follower.refused_nameservers());
        Ok((follower, update))
    }

    /// Waits for what the first policy did not wait for: the NAT64 translators that nameservers reveal within 200 ms. If they
    /// are others, a policy with them is published. To be called before the fence is relied on.
    ///
    /// # Errors
    /// As [`Follower::update`].
    pub async fn settle(&mut self) -> Result<()> {
        if self.inputs.has_late_translators().await {
            self.renew(Lock::Wait).await?;
        }
        Ok(())
    }

    /// The same where processes run in the fence already: a lock on the policy is not waited for. Errors are reported, and
    /// [`Follower::tick`] tries again.
    pub async fn settle_at_once(&mut self, messages: &mut MessageQueue) {
        if self.inputs.has_late_translators().await {
            self.keep_up(messages).await;
        }
    }

    /// The loaded programs.
    pub fn kernel(&mut self) -> &mut Kernel {
        &mut self.kernel
    }
}

impl Follower<Maps> {
    /// Follows in place of a fence's supervisor, by its policy file and the maps in `pins`. The policy is up to date
    /// only after the first [`Follower::tick`]. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// If the policy or the maps do not exist, or the host's addresses cannot be followed.
    pub async fn in_place_of_supervisor(
        policy_file: PolicyFile,
        pins: &Path,
        watcher: &Watcher,
    ) -> Result<Self> {
        let kernel = Maps::open(pins)?;
        let stored = policy_file.read()?.context("the fence has no policy")?;
        let mut inputs = Inputs::new(policy_file, stored.policy, watcher, stored.devices)?;
        inputs.facts.addresses.reading().await?;
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
    /// Reads the current members of the sets, and the rules, which other commands can change. Publishes the policy if
    /// anything is different.
    ///
    /// # Errors
    /// If they cannot be read or published. The previous policy then stays in force.
    pub async fn update(&mut self) -> Result<Update> {
        self.renew(Lock::Try).await
    }

    async fn renew(&mut self, lock: Lock) -> Result<Update> {
        let kernel = &mut self.kernel;
        self.inputs
            .renew(lock, |compiled| kernel.as_mut().publish(compiled))
            .await
    }

    /// Whether a destination is refused by the policy that this process published last.
    #[must_use]
    pub fn refuses(&self, protocol: Protocol, address: IpAddr, port: u16) -> bool {
        self.refusal(protocol, address, port).is_some()
    }

    /// The verdict on a destination, if it is refused by the policy that this process published last.
    #[must_use]
    pub fn refusal(&self, protocol: Protocol, address: IpAddr, port: u16) -> Option<Verdict> {
        let Inputs {
            compiled, policy, ..
        } = &self.inputs;
        let verdict = compiled.decide(LookupPath::Address, protocol, address, port);
        (verdict.action() == Action::Deny && !policy.monitor).then_some(verdict)
    }

    /// Whether an established connection is refused by that policy.
    #[must_use]
    pub fn denies(&self, connection: &Connection) -> bool {
        // A fence that is attached to others has no rules by name.
        let names = ByName::default();
        policy_change::denies(
            &self.inputs.compiled,
            &self.inputs.policy,
            &names,
            connection,
        )
    }

    /// The policy that this process read or published last.
    pub(crate) fn policy(&self) -> &Policy {
        &self.inputs.policy
    }

    /// Waits until the members of a set may have changed, or cannot be read any more. [`Follower::keep_up`] handles
    /// that. Cancel-safe.
    pub(crate) async fn changed(&mut self) {
        self.inputs.facts.changed().await;
    }

    /// To be called once per second. Retries what has failed, and adopts changes by other commands. If the host's
    /// addresses are followed, it informs the programs of that.
    pub(crate) async fn tick(&mut self, messages: &mut MessageQueue) {
        self.inputs.facts.subscribe_again();
        // Other commands also compile with the stored members. Keeping these up to date remains the task of this
        // process.
        let was_changed = self.inputs.policy_file.file_version() != self.inputs.version;
        if !self.current
            || was_changed
            || self.inputs.facts.has_news()
            || self.inputs.unkept.is_some()
        {
            self.keep_up(messages).await;
        }
        self.beat(messages);
    }

    /// Reads everything again and publishes in any case: another process has followed meanwhile, and its progress is
    /// not known.
    pub(crate) async fn take_over(&mut self, messages: &mut MessageQueue) {
        // Notifications from that time may still be unread.
        self.inputs.facts.refresh().await;
        self.inputs.doubted = true;
        self.keep_up(messages).await;
        self.beat(messages);
    }

    /// Handles a change found by [`Follower::changed`]. Errors are reported, and [`Follower::tick`] tries again.
    pub(crate) async fn keep_up(&mut self, messages: &mut MessageQueue) {
        let updated = self.update().await;
        let updated = updated
            .context("the fence does not follow the host's addresses and nameservers; retrying");
        let mended = "the fence follows the host's addresses and nameservers again";
        let updated = self.said.updating.report(updated, mended, messages);
        self.current = updated.is_some_and(|update| update != Update::Busy);
        self.report_waiting(updated == Some(Update::Busy), messages);
        if self.current {
            let followed = self.inputs.facts.why_unfollowed();
            let mended = "the host's addresses are followed again";
            self.said.following.report(followed, mended, messages);
            let read = self.inputs.facts.why_unknown_workload();
            let mended = "the workload's addresses are followed again";
            self.said.workload.report(read, mended, messages);
            self.report_naming(messages);
            self.report_ambiguous(messages);
            let read = self.inputs.facts.why_bad_file();
            let mended = "the file of further addresses of the host can be read again";
            self.said.file.report(read, mended, messages);
            let read = self.inputs.facts.why_unrouted();
            let mended = "the host's gateways are followed again";
            self.said.routing.report(read, mended, messages);
            let kept = self.inputs.why_unkept();
            let mended = "the policy file is up to date again";
            self.said.keeping.report(kept, mended, messages);
        }
    }

    /// Reports why the nameservers are not known.
    fn report_naming(&mut self, messages: &MessageQueue) {
        if self.inputs.facts.nameservers.is_none() {
            // No rule depends on nameservers any more.
            self.said.naming = RecurringError::default();
            return;
        }
        let path = self.inputs.facts.resolv_conf();
        let mended = format!("{path} can be read again");
        let named = self.inputs.facts.why_unnamed();
        self.said.naming.report(named, mended, messages);
    }

    /// The nameservers that a rule for nameservers cannot cover, and that the policy refuses, in words.
    #[must_use]
    pub fn refused_nameservers(&self) -> Option<String> {
        let ambiguous = &self.inputs.facts.ambiguous;
        let refused: Vec<_> = ambiguous
            .iter()
            .filter(|server| self.refuses(Protocol::UDP, server.address, DNS))
            .collect();
        let first = refused.first()?;
        let all: Vec<_> = refused.iter().map(ToString::to_string).collect();
        Some(format!(
            "warning: the fence refuses the nameserver {}: other interfaces have link-local addresses too, and a rule \
             cannot distinguish between interfaces; --allow '[{}]:{DNS}' allows the address on all of them",
            all.join(", "),
            first.address,
        ))
    }

    /// Reports nameservers that are refused although a rule allows nameservers.
    fn report_ambiguous(&mut self, messages: &MessageQueue) {
        let refused = match self.refused_nameservers() {
            None => Ok(()),
            Some(warning) => Err(anyhow!(warning)),
        };
        let mended = "the fence allows each nameserver again";
        self.said.ambiguous.report(refused, mended, messages);
    }

    /// Reports a process that takes too long to change the policy.
    fn report_waiting(&mut self, is_busy: bool, messages: &mut MessageQueue) {
        if !is_busy {
            self.busy_since = None;
        }
        let since = is_busy.then(|| *self.busy_since.get_or_insert_with(Instant::now));
        let waited = match since {
            Some(since) if since.elapsed() >= PATIENCE => Err(anyhow!(
                "the fence does not follow the host's addresses and nameservers: {}, which has been changing the policy for more \
                 than {} seconds. If it is stopped, continue or end it",
                self.inputs.policy_file.holder(),
                PATIENCE.as_secs()
            )),
            _ => Ok(()),
        };
        let mended = "the fence follows the host's addresses and nameservers again";
        // If other processes take turns, the problem is not resolved.
        if waited.is_err() || !is_busy {
            self.said.waiting.report(waited, mended, messages);
        }
    }

    /// Informs the programs that the policy is up to date. Without this pulse, they notice that it may not be.
    fn beat(&mut self, messages: &mut MessageQueue) {
        if self.current && self.inputs.facts.addresses.is_true() {
            messages.report(self.kernel.as_mut().beat());
        }
    }
}

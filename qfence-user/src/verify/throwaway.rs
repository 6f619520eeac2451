//! The fence that is put to the test: like one of `exec`'s, and gone afterwards.

use std::process;

use anyhow::{Context, Result};
use jiff::Timestamp;
use qfence_common::Hook;

use crate::{
    base::{name::derive_name, paths::Paths},
    cli::choose,
    compile::Compiled,
    fence::{description::State, guard::Fence, limits::Limits, registry::Fences},
    host::watcher::Watcher,
    kernel::{Attempts, DenyWith, Kernel, Maps, Settings},
    policy::{Dns, Policy, profile::Profile},
    supervise::follow::Follower,
};

/// A fence without a log: what is on record is read here.
pub struct ThrowAway {
    fence: Fence,
    attempts: Attempts,
    /// The maps of the programs, and what keeps their policy true.
    policy: Follower,
}

impl ThrowAway {
    /// Puts up a fence that judges by the addresses of the network namespace of this thread, in the
    /// order of `exec`. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// If any of it cannot be; nothing is left then.
    pub async fn new(paths: &Paths) -> Result<Self> {
        let name = derive_name("verify".as_ref());
        let state = State {
            command: vec!["qfence-user".into(), "verify".into()],
            supervisor: i32::try_from(process::id()).unwrap_or_default(),
            started: format!("{:.0}", Timestamp::now()),
            cgroup: None,
            qemu: None,
        };
        let fences = Fences::open(paths)?;
        let fence = fences.create(Some(&name), "verify".as_ref(), &Limits::default(), &state)?;
        let profile = Profile::shipped(choose::DEFAULT_PROFILE)?;
        let policy = Policy::new(Vec::new(), Dns::Auto, profile.into(), None, false)?;
        let settings = Settings {
            deny: DenyWith::Refused,
            allow_raw: false,
            allow_devices: false,
            allow_netns: false,
            cgroup: fence.cgroup().id()?.context("the cgroup is gone")?,
            trace: false,
            rules: policy.numbers_end(),
        };
        let pins = fence.pins();
        let load = |compiled: &Compiled| Ok(Kernel::load(settings, &paths.run, &pins, compiled)?.0);
        let (mut policy, _) = Follower::begin(
            fence.store(),
            policy,
            &Watcher::new(&paths.resolv_conf),
            load,
        )
        .await?;
        policy.kernel().finish_loading()?;
        let attempts = Attempts::open(&pins)?.context("somebody else reads what is on record")?;
        policy.kernel().attach(&fence.cgroup().open()?, &pins)?;
        Ok(Self {
            fence,
            attempts,
            policy,
        })
    }

    /// The fence itself.
    #[must_use]
    pub fn fence(&self) -> &Fence {
        &self.fence
    }

    /// The hooks that have recorded refusals since the last call, each once, in their order.
    ///
    /// # Errors
    /// If a record is not understood.
    pub fn layers(&mut self) -> Result<Vec<&'static str>> {
        // Nothing changes on the private host: the policy is true to it.
        AsMut::<Maps>::as_mut(self.policy.kernel()).beat()?;
        let mut hooks = Vec::new();
        while let Some(event) = self.attempts.event()? {
            hooks.push(event.kind.hook);
        }
        // Nothing is known from one call to the next, so that each attempt is an event again.
        let counted = self.attempts.take(&[])?;
        let repeated = counted.iter().filter(|(_, repeats)| repeats.count > 0);
        hooks.extend(repeated.map(|(kind, _)| kind.hook));
        let mut layers = Vec::new();
        for number in hooks {
            let hook = Hook::from_number(number)
                .with_context(|| format!("a record of an unknown hook, {number}"))?;
            if !layers.contains(&hook.name()) {
                layers.push(hook.name());
            }
        }
        Ok(layers)
    }

    /// Ends what runs in it, and removes it.
    ///
    /// # Errors
    /// All that could not be removed.
    pub fn remove(self) -> Result<()> {
        self.fence.remove()
    }
}

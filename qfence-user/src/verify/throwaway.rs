//! The fence under test: it is set up like that of `exec`, and removed afterwards.

use std::process;

use anyhow::{Context, Result};
use jiff::Timestamp;
use qfence_common::{Action, Hook};

use crate::{
    base::{console::notify, name::derive_name, paths::Paths},
    build::{Building, Programs},
    cli::resolve,
    confinement::Enforced,
    fence::{
        description::Description,
        guard::Fence,
        limits::Limits,
        registry::{Fences, MOUNTED_BPFFS},
    },
    host::watcher::Watcher,
    kernel::{Attempts, DenyWith, Maps, NetworkDevices},
    policy::{
        Dns, Policy,
        profile::Profile,
        rule::{Rule, Source},
    },
    supervise::follower::Follower,
};

/// A fence without a log: its attempts are read here.
pub struct ThrowAway {
    fence: Fence,
    attempts: Attempts,
    /// The maps of the programs, and the follower that keeps the policy up to date.
    policy: Follower,
}

impl ThrowAway {
    /// Makes a fence with the steps of `exec`, in the same order. Its policy allows `allowed`, as `--allow` does, and uses
    /// the addresses of the network namespace of this thread. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// If a step fails; nothing is left then.
    pub async fn new(paths: &Paths, allowed: &[&str]) -> Result<Self> {
        let name = derive_name("verify".as_ref());
        let description = Description {
            command: vec!["qfence-user".into(), "verify".into()],
            supervisor: i32::try_from(process::id()).unwrap_or_default(),
            started: format!("{:.0}", Timestamp::now()),
            qemu: None,
            strict: Vec::new(),
            open: Vec::new(),
            hooks: Vec::new(),
            without: Vec::new(),
            devices: Vec::new(),
            attached: None,
        };
        let fences = Fences::open(paths)?;
        let registry = fences.lock()?;
        let made = registry.create(
            Some(&name),
            "verify".as_ref(),
            &Limits::default(),
            &description,
        )?;
        if made.mounted_bpffs {
            notify(MOUNTED_BPFFS);
        }
        let fence = made.fence;
        match build(&fence, paths, allowed).await {
            Ok((attempts, policy)) => Ok(Self {
                fence,
                attempts,
                policy,
            }),
            Err(error) => Err(fence.give_up(error)),
        }
    }

    /// The fence.
    #[must_use]
    pub fn fence(&self) -> &Fence {
        &self.fence
    }

    /// Returns the hooks that have recorded refusals since the last call, each once, in the order of their first
    /// refusal.
    ///
    /// # Errors
    /// If a record cannot be parsed.
    pub fn layers(&mut self) -> Result<Vec<&'static str>> {
        // Nothing changes on the private host, so the policy matches it: the pulse can be renewed.
        AsMut::<Maps>::as_mut(self.policy.kernel()).beat()?;
        let mut hooks = Vec::new();
        while let Some((event, _)) = self.attempts.event()? {
            hooks.push(event.key.hook);
        }
        // Takes all attempt keys out of the map, so that the next attempt of a key makes an event again.
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

    /// Ends the processes in the fence, and removes it.
    ///
    /// # Errors
    /// Every error of the removal.
    pub fn remove(self) -> Result<()> {
        self.fence.remove()
    }
}

/// Builds a fence like `exec` with no other options than these `--allow`; returns its attempts, and the follower that keeps its policy up to date.
async fn build(fence: &Fence, paths: &Paths, allowed: &[&str]) -> Result<(Attempts, Follower)> {
    let programs = Programs {
        deny: DenyWith::Refused,
        allow_raw: false,
        allow_devices: NetworkDevices::None,
        allow_netns: false,
        log_allowed: false,
        enforced: Enforced::default(),
        trace: false,
        managers: None,
        devices: Vec::new(),
        lists: false,
    };
    let profile = Profile::shipped(resolve::DEFAULT_PROFILE)?;
    let rules = allowed.iter().map(|text| allow(text));
    let policy = Policy::new(
        rules.collect::<Result<_>>()?,
        Dns::Auto,
        profile.into(),
        None,
        false,
    )?;
    let watcher = Watcher::new(paths);
    let building = Building::begin(fence, programs, policy, &watcher, &paths.run).await?;
    let loaded = building.finish_loading()?;
    let attempts = loaded.attempts()?;
    Ok((attempts, loaded.attach(&[])?.policy))
}

/// The rule of `--allow`.
fn allow(text: &str) -> Result<Rule> {
    Ok(Rule {
        action: Action::Allow,
        matches: vec![text.parse()?],
        comment: None,
        source: Source::Flag {
            text: format!("--allow {text}"),
        },
    })
}

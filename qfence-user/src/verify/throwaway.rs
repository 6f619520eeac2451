//! The fence under test: it is set up like that of `exec`, and removed afterwards.

use std::{mem, process};

use anyhow::{Context, Result};
use jiff::Timestamp;
use qfence_common::{Action, Hook};

use crate::{
    base::{console::notify, mac::Mac, name::derive_name, paths::Paths},
    build::{Building, Programs},
    cli::resolve,
    confinement::Enforced,
    fence::{
        description::Description,
        devices::FencedDevice,
        guard::Fence,
        limits::Limits,
        registry::{Fences, MOUNTED_BPFFS},
    },
    host::{devices::Devices, watcher::Watcher},
    kernel::{Attempts, DenyWith, LogAllowed, Maps, NetworkDevices, device, local_in::Membership},
    policy::{
        Dns, Policy,
        profile::Profile,
        rule::{Rule, Source},
    },
    stored_policy::netns,
    supervise::follower::Follower,
};

/// A fence without a log: its attempts are read here.
pub struct ThrowAway {
    fence: Fence,
    attempts: Attempts,
    /// The maps of the programs, and the follower that keeps the policy up to date.
    policy: Follower,
    devices: Vec<FencedDevice>,
    /// The second layer for frames, unless it was taken away.
    local_in: Option<Membership>,
    /// How many attempts it had refused at the last look.
    refused: u64,
}

impl ThrowAway {
    /// Makes a fence with the steps of `exec`, in the same order. Its policy allows `allowed`, as `--allow` does, and uses
    /// the addresses of the network namespace of this thread. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// If a step fails; nothing is left then.
    pub async fn new(paths: &Paths, allowed: &[&str]) -> Result<Self> {
        Self::with_devices(paths, allowed, Vec::new()).await
    }

    /// Makes a fence as [`Self::new`] does, with a tap device of this thread's network namespace, as `--device` and `--mac`
    /// do.
    ///
    /// # Errors
    /// If there is no such device, or a step fails; nothing is left then.
    pub async fn of_device(paths: &Paths, name: &str, mac: [u8; 6]) -> Result<Self> {
        let found = Devices::read().await?;
        let device = found.named(name);
        let device = device.with_context(|| format!("there is no network device {name}"))?;
        let device = FencedDevice {
            name: device.name.clone(),
            index: device.index,
            netns: netns()?,
            is_reversed: false,
            macs: vec![Mac(mac)],
            learns_mac: false,
            learnt: None,
            is_made: false,
            is_of_pod: false,
        };
        Self::with_devices(paths, &[], vec![device]).await
    }

    async fn with_devices(
        paths: &Paths,
        allowed: &[&str],
        devices: Vec<FencedDevice>,
    ) -> Result<Self> {
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
            devices: devices.clone(),
            wired: None,
            attached: None,
            beneath: None,
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
        match build(&fence, paths, allowed, &devices).await {
            Ok((attempts, policy, local_in)) => Ok(Self {
                fence,
                attempts,
                policy,
                devices,
                local_in,
                refused: 0,
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
        self.beat()?;
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

    /// Whether its programs have refused anything since the last call. It is quicker than [`Self::layers`].
    ///
    /// # Errors
    /// If a counter cannot be read.
    pub fn has_refused(&mut self) -> Result<bool> {
        let maps = AsMut::<Maps>::as_mut(self.policy.kernel());
        let refused = maps.counts()?.refused;
        let before = mem::replace(&mut self.refused, refused);
        Ok(refused > before)
    }

    /// Whether the second layer has dropped packets of its guests since the last call. Reading it can take a command.
    ///
    /// # Errors
    /// If a counter cannot be read.
    pub fn has_dropped(&mut self) -> Result<bool> {
        let Some(local_in) = &mut self.local_in else {
            return Ok(false);
        };
        let drained = local_in.drain()?;
        Ok(drained.lost > 0 || !drained.drops.is_empty())
    }

    /// Confirms that the policy matches the host, on which nothing changes.
    ///
    /// # Errors
    /// If the kernel refuses it.
    pub fn beat(&mut self) -> Result<()> {
        AsMut::<Maps>::as_mut(self.policy.kernel()).beat()
    }

    /// Detaches the programs from the devices. The second layer remains.
    ///
    /// # Errors
    /// If the kernel fails to.
    pub fn take_first_layer_away(&mut self) -> Result<()> {
        let pins = self.fence.pins();
        for fenced in &self.devices {
            device::detach(self.policy.kernel(), fenced.index, &pins)?;
        }
        Ok(())
    }

    /// Attaches the programs to the devices again.
    ///
    /// # Errors
    /// If the kernel refuses it, or the second layer was taken away.
    pub async fn put_first_layer_back(&mut self) -> Result<()> {
        let found = Devices::read().await?;
        let local_in = self.local_in.as_mut();
        let local_in = local_in.context("the fence has no second layer any more")?;
        let pins = self.fence.pins();
        for fenced in &self.devices {
            fenced.fence(self.policy.kernel(), local_in, &found, &pins)?;
        }
        Ok(())
    }

    /// Removes the fence from the second layer, which ends with it if it was the last. The programs at the devices remain.
    ///
    /// # Errors
    /// If the kernel fails to.
    pub fn take_second_layer_away(&mut self) -> Result<()> {
        self.local_in.take().map_or(Ok(()), Membership::leave)
    }

    /// Ends the processes in the fence, and removes it.
    ///
    /// # Errors
    /// Every error of the removal.
    pub fn remove(self) -> Result<()> {
        self.fence.remove()
    }
}

/// Builds a fence like `exec` with no other options than these `--allow` and `--device`; returns its attempts, the follower
/// that keeps its policy up to date, and the second layer for frames.
async fn build(
    fence: &Fence,
    paths: &Paths,
    allowed: &[&str],
    devices: &[FencedDevice],
) -> Result<(Attempts, Follower, Option<Membership>)> {
    let programs = Programs {
        deny: DenyWith::Refused,
        allow_raw: false,
        allow_devices: NetworkDevices::None,
        allow_netns: false,
        node_netns: 0,
        log_allowed: LogAllowed::No,
        enforced: Enforced::default(),
        trace: false,
        managers: None,
        judges_frames: !devices.is_empty(),
        serving: devices.iter().map(|device| device.name.clone()).collect(),
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
    let attempts = building.attempts()?;
    let mut loaded = building.finish_loading()?;
    let local_in = if devices.is_empty() {
        None
    } else {
        let found = watcher.devices().reading().await?;
        Some(loaded.attach_devices(devices, &found, paths)?)
    };
    let mut policy = loaded.attach(&[])?.policy;
    policy.settle().await?;
    Ok((attempts, policy, local_in))
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

//! The network devices of guests: finds those that are to be fenced, opens the taps for a QEMU, and makes new ones.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    io,
    os::fd::{AsRawFd as _, OwnedFd},
};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use nix::{errno::Errno, unistd::Uid};

use crate::{
    base::mac::Mac,
    cli::{Exec, NewTap},
    commands::devices::{add_named, fenced, hint_down, read},
    fence::devices::FencedDevice,
    host::devices::{
        self, Devices, Kind,
        tap::{self, Use},
    },
    qemu::taps::Tap,
    stored_policy::netns,
};

/// The network devices of a command.
#[derive(Debug, Default)]
pub(super) struct Guests {
    /// The command. A QEMU has descriptors in place of the names of its taps.
    pub(super) command: Vec<OsString>,
    /// These descriptors.
    pub(super) given: Vec<OwnedFd>,
    /// The devices to fence.
    pub(super) fenced: Vec<FencedDevice>,
    /// Those that were made, and are down.
    made: Vec<Made>,
    /// Whether the command needs /dev/vhost-net for them.
    pub(super) uses_vhost: bool,
}

/// A device that was made.
#[derive(Debug)]
struct Made {
    name: String,
    index: u32,
    /// The bridge that it is to be a port of: index and name.
    bridge: Option<(u32, String)>,
}

impl Guests {
    /// Finds the devices. `taps` are those that a QEMU names, and `owner` is the user of the command. Nothing can be sent
    /// by them yet: only this process has the descriptors.
    ///
    /// # Errors
    /// If a device does not exist, is of a kind that cannot be fenced, or cannot be opened. Nothing is left then.
    pub(super) fn find(options: &Exec, taps: &[Tap], owner: Option<Uid>) -> Result<Self> {
        let mut guests = Self {
            command: options.command.clone(),
            ..Self::default()
        };
        let wanted = &options.devices;
        if taps.is_empty() && wanted.device.is_empty() && wanted.tap.is_empty() {
            return Ok(guests);
        }
        for new in &wanted.tap {
            let is_used = taps.iter().any(|tap| tap.name == new.name);
            ensure!(
                is_used,
                "--tap {}: the command is no QEMU with -netdev tap,ifname={}, and nothing else in a fence can open a tap \
                 device",
                new.name,
                new.name
            );
        }
        let before = read()?;
        for (place, tap) in taps.iter().enumerate() {
            let is_again = taps[..place].iter().any(|other| other.name == tap.name);
            ensure!(
                !is_again,
                "QEMU is to use the tap device {} twice",
                tap.name
            );
            let new = wanted.tap.iter().find(|new| new.name == tap.name);
            guests.open(tap, new, owner, &before)?;
        }
        // A device that another process has replaced since would not be the one that was opened.
        let now = read()?;
        let here = netns()?;
        for tap in taps {
            let device = now.named(&tap.name).with_context(|| gone(&tap.name))?;
            let made = wanted.tap.iter().find(|new| new.name == tap.name);
            let is_same = before.named(&tap.name).map(|before| before.index) == Some(device.index);
            ensure!(made.is_some() || is_same, gone(&tap.name));
            if let Some(new) = made {
                guests.made.push(Made {
                    name: new.name.clone(),
                    index: device.index,
                    bridge: bridge(new, &now)?,
                });
            } else if !device.is_up {
                hint_down(device);
            }
            let macs: BTreeSet<Mac> = tap.macs.iter().chain(&wanted.mac).copied().collect();
            let learns = tap.has_unknown_mac && wanted.mac.is_empty();
            guests.fenced.push(fenced(device, here, macs, learns));
            if let Some(added) = guests.fenced.last_mut() {
                added.is_made = made.is_some();
            }
        }
        add_named(&mut guests.fenced, &wanted.device, &wanted.mac, &now)?;
        Ok(guests)
    }

    /// Sets the devices that were made up, after they were fenced. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// If the kernel refuses it.
    pub(super) async fn set_up(&self) -> Result<()> {
        for Made {
            name,
            index,
            bridge,
        } in &self.made
        {
            if let Some((bridge, of_bridge)) = bridge {
                let moved = devices::move_into(*index, *bridge).await;
                moved.with_context(|| format!("cannot put {name} into the bridge {of_bridge}"))?;
            }
            let set = devices::set_up(*index).await;
            set.with_context(|| format!("cannot set {name} up"))?;
        }
        Ok(())
    }

    /// Opens the device of a QEMU, or makes it, and writes its descriptors into the command.
    fn open(
        &mut self,
        tap: &Tap,
        new: Option<&NewTap>,
        owner: Option<Uid>,
        before: &Devices,
    ) -> Result<()> {
        let (name, found) = (&tap.name, before.named(&tap.name));
        let how = Use {
            queues: tap.queues,
            vnet_hdr: tap.vnet_hdr,
        };
        let descriptors = match (new, found) {
            (Some(_), Some(_)) => bail!(
                "--tap {name}: there is a network device of this name already; leave out --tap to use it, or give \
                 another name"
            ),
            (Some(_), None) => tap::make(name, how, owner)
                .with_context(|| format!("cannot make the tap device {name}"))?,
            (None, None) => bail!(
                "{}: there is no network device {name} in this network namespace, and one that QEMU makes cannot be \
                 fenced; make it first (`ip tuntap add {name} mode tap user {}` and `ip link set {name} up`), or let \
                 qfence make it (--tap {name}); or give --allow-unfenced-net",
                tap.argument,
                owner.map_or_else(|| "USER".to_owned(), |owner| owner.to_string()),
            ),
            (None, Some(device)) => {
                ensure!(
                    device.kind == Kind::Tap,
                    "{}: {name} is {}, and no tap device",
                    tap.argument,
                    device.kind
                );
                tap::open(name, how).map_err(|error| unopened(tap, &error))?
            }
        };
        let numbers: Vec<_> = descriptors.iter().map(|queue| queue.as_raw_fd()).collect();
        let word = self.command.get_mut(tap.word);
        let word = word.context("the argument is gone")?;
        *word = tap.rewrite(word, &numbers)?;
        self.given.extend(descriptors);
        self.uses_vhost |= tap.vhost;
        Ok(())
    }
}

/// Why a device that exists cannot be opened.
fn unopened(tap: &Tap, error: &io::Error) -> anyhow::Error {
    let name = &tap.name;
    let errno = error.raw_os_error().map(Errno::from_raw);
    let more = match errno {
        Some(Errno::EBUSY) => "; another process has it open".to_owned(),
        Some(Errno::EINVAL) if tap.queues > 1 => format!(
            "; it was made for one queue: leave out queues={}, or make it with `ip tuntap add … multi_queue`",
            tap.queues
        ),
        Some(Errno::EINVAL) => {
            "; it was made for several queues: give queues=, or make it without multi_queue"
                .to_owned()
        }
        _ => String::new(),
    };
    anyhow!("cannot open the tap device {name}: {error}{more}")
}

fn gone(name: &str) -> String {
    format!("the network device {name} was removed or replaced while it was opened")
}

/// The bridge of a new device: index and name.
fn bridge(new: &NewTap, devices: &Devices) -> Result<Option<(u32, String)>> {
    let Some(name) = &new.bridge else {
        return Ok(None);
    };
    let bridge = devices.named(name);
    let bridge = bridge.with_context(|| {
        format!(
            "--tap {}: there is no bridge {name} in this network namespace",
            new.name
        )
    })?;
    ensure!(
        bridge.kind == Kind::Bridge,
        "--tap {}: {name} is {}, and no bridge",
        new.name,
        bridge.kind
    );
    Ok(Some((bridge.index, name.clone())))
}

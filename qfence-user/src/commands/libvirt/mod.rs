//! `libvirt-hook`: libvirt calls it at each stage of a domain's life.
//!
//! | operation | QEMU | what is done |
//! |---|---|---|
//! | `prepare` | does not exist | what asks for a fence is checked, and the partition is made |
//! | `start` | does not exist; its tap devices do | the partition and the devices are fenced |
//! | `started` | runs | QEMU must be in the partition, otherwise libvirt ends the domain |
//! | `reconnect` | runs, and libvirtd was restarted | a missing fence is reported. A failure would end the domain |
//! | `port-created`, of the hook `network` | runs, or does not exist yet | an interface for a guest that runs in a fence is refused |
//! | `release` | has ended | the fence and the partition are removed |

mod asked;
mod port;

use std::{io::stdin, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};

use self::asked::{to_attach, unseen_of};
use super::{
    attach::{self, guests::Guest},
    require_root,
};
use crate::{
    base::{console::notify, paths::Paths, printable::printable, system_log},
    cli::{Attach, LibvirtHook},
    fence::{hierarchy::Hierarchy, registry::Fences},
    workload::{
        self, Target,
        libvirt::{
            definition::{Definition, Network},
            options,
            partition::Partition,
        },
        words_of_domain,
    },
};

/// Runs `libvirt-hook`.
///
/// # Errors
/// If the domain cannot be fenced, or its fence cannot be removed; never at `reconnect`.
pub(super) fn run(options: &LibvirtHook, paths: &Paths) -> Result<()> {
    match (options.operation.as_str(), options.stage.as_str()) {
        ("prepare", "begin") => Hook::read(options, paths)?.prepare(),
        ("start", "begin") => Hook::read(options, paths)?.start(),
        ("started", "begin") => Hook::read(options, paths)?.check_started(),
        ("reconnect", "begin") => {
            let found = Hook::read(options, paths).and_then(|hook| hook.check_started());
            if let Err(error) = found {
                let message = format!("error: {error:#}");
                // libvirt keeps what hooks say that do not fail to itself.
                let _ = system_log::write(&message);
                notify(message);
            }
            Ok(())
        }
        ("port-created", "begin") => port::check(options, paths),
        ("release", "end") => Hook::read_of_ended(options, paths)?.release(),
        _ => Ok(()),
    }
}

/// A call of the hook.
struct Hook<'a> {
    definition: Definition,
    /// The options for the domain; `None` if it is not to be fenced.
    asked: Option<Vec<String>>,
    options: &'a LibvirtHook,
    paths: &'a Paths,
}

impl<'a> Hook<'a> {
    fn read(options: &'a LibvirtHook, paths: &'a Paths) -> Result<Self> {
        let mut hook = Self::unasked(options, paths)?;
        hook.asked = options::of(&hook.definition, &paths.domains)?;
        Ok(hook)
    }

    /// For a domain that has ended. What asked for its fence may be invalid by now.
    fn read_of_ended(options: &'a LibvirtHook, paths: &'a Paths) -> Result<Self> {
        let mut hook = Self::unasked(options, paths)?;
        hook.asked = options::of(&hook.definition, &paths.domains).unwrap_or_else(|error| {
            notify(format_args!("warning: {error:#}"));
            None
        });
        Ok(hook)
    }

    fn unasked(options: &'a LibvirtHook, paths: &'a Paths) -> Result<Self> {
        require_root()?;
        let definition = Definition::read(stdin())?;
        ensure!(
            definition.name == options.domain,
            "standard input is the XML of the domain {:?}, and not of {:?}",
            definition.name,
            options.domain
        );
        Ok(Self {
            asked: None,
            definition,
            options,
            paths,
        })
    }

    fn prepare(&self) -> Result<()> {
        let Some(attach) = self.attach()? else {
            return Ok(());
        };
        self.refuse_unseen(&attach)?;
        let hierarchy = Hierarchy::find(&self.paths.mountinfo)?;
        // libvirt may have been killed before it could call the hook at the end.
        self.remove_fence()?;
        self.partition()?.make(&hierarchy, &self.paths.root)
    }

    /// Refuses networks that no fence sees.
    fn refuse_unseen(&self, attach: &Attach) -> Result<()> {
        let name = &self.definition.name;
        let mut unseen: Vec<_> = self
            .definition
            .unseen()
            .into_iter()
            .map(str::to_owned)
            .collect();
        unseen.extend(unseen_of(&self.definition.arguments));
        if !attach.allow_unfenced_net && !unseen.is_empty() {
            bail!(
                "the domain {name} has networks that no fence sees: {}. Take them out of its XML, or give \
                 --allow-unfenced-net to the hook",
                unseen.join("; ")
            );
        }
        Ok(())
    }

    fn start(&self) -> Result<()> {
        let Some(attach) = self.attach()? else {
            return Ok(());
        };
        // A network of libvirt can have become a device of the host since `prepare`.
        self.refuse_unseen(&attach)?;
        let name = &self.definition.name;
        let target = Target::StartingDomain {
            name: name.clone(),
            partition: self.partition()?.path,
        };
        attach::run_on(&attach, Some(&target), &self.guests()?, None, self.paths)
            .map(|_| ())
            .with_context(|| format!("the domain {name} is not fenced"))
    }

    /// Checks that the domain's QEMU is where its fence is.
    fn check_started(&self) -> Result<()> {
        if self.asked.is_none() {
            return Ok(());
        }
        let name = &self.definition.name;
        let partition = self.partition()?;
        let fence = self.fence()?;
        fence.with_context(|| {
            format!(
                "the domain {name} is NOT FENCED: the partition {} has no fence; restart the domain",
                partition.path.display()
            )
        })?;
        let found = workload::find(&Target::Domain(name.clone()), self.paths)?;
        ensure!(
            found.cgroup.starts_with(&partition.path),
            "the domain {name} is NOT FENCED: libvirt has put it into the cgroup {}, and not into the partition {}",
            found.cgroup.display(),
            partition.path.display()
        );
        Ok(())
    }

    fn release(&self) -> Result<()> {
        if self.asked.is_none() && self.fence()?.is_none() {
            return Ok(());
        }
        self.remove_fence()?;
        let hierarchy = Hierarchy::find(&self.paths.mountinfo)?;
        self.partition()?.remove(&hierarchy, &self.paths.root)
    }

    /// The partition that the domain's XML names.
    fn partition(&self) -> Result<Partition> {
        let Definition {
            name, partition, ..
        } = &self.definition;
        Partition::of(name, partition.as_deref(), &self.paths.root)
    }

    /// The name of the fence of the domain's partition; `None` if there is none.
    fn fence(&self) -> Result<Option<String>> {
        // A domain without a partition of its own was never fenced here.
        let Ok(partition) = self.partition() else {
            return Ok(None);
        };
        let words = printable(words_of_domain(&self.definition.name).as_bytes());
        let fences = Fences::open(self.paths)?;
        let is_ours = |name: &str| {
            let attached = fences.description(name).and_then(|fence| fence.attached);
            attached.is_some_and(|attached| {
                attached.cgroup == partition.path && attached.workload == words
            })
        };
        let mut names = fences.attached()?.into_iter().map(|(name, _)| name);
        Ok(names.find(|name| is_ours(name)))
    }

    fn remove_fence(&self) -> Result<()> {
        let Some(name) = self.fence()? else {
            return Ok(());
        };
        let fences = Fences::open(self.paths)?;
        fences.remove(&name, Duration::ZERO, &mut |note| notify(note))
    }

    /// The network devices of the domain.
    fn guests(&self) -> Result<Vec<Guest>> {
        let devices = self.definition.networks.iter();
        let devices = devices.filter_map(|network| match network {
            Network::Device { name, mac } => Some((name, *mac)),
            Network::Sockets | Network::Unseen(_) => None,
        });
        devices
            .map(|(name, mac)| {
                let device = name.clone().with_context(|| {
                    format!(
                        "libvirt has not said which network device an interface of the domain {} is",
                        self.definition.name
                    )
                })?;
                Ok(Guest { device, mac })
            })
            .collect()
    }

    /// The command line of `attach` for the domain; `None` if it is not to be fenced.
    fn attach(&self) -> Result<Option<Attach>> {
        let Some(asked) = &self.asked else {
            return Ok(None);
        };
        to_attach(&self.definition.name, asked, &self.options.options).map(Some)
    }
}

//! libvirt's hook `network`: an interface that is added to a running guest.
//!
//! libvirt calls no hook of the guest for it, and makes the network device after this one. So its frames could not be judged
//! from the first one on: it is refused. At the start of a guest, its fence does not exist yet at this point.

use std::io::stdin;

use anyhow::{Context as _, Result, bail};
use nix::net::if_::if_nametoindex;

use super::{super::require_root, asked::to_attach};
use crate::{
    base::{console::notify, paths::Paths, printable::printable},
    cli::LibvirtHook,
    fence::{
        description::Description, devices::FencedDevice, hierarchy::Hierarchy, registry::Fences,
    },
    workload::{self, Target, is_not_running, libvirt::port::Port, words_of_domain},
};

/// Refuses an interface of a domain that runs in a fence, unless the fence has it already.
///
/// # Errors
/// If it is refused. libvirt then does not add it, and shows the message.
pub(super) fn check(options: &LibvirtHook, paths: &Paths) -> Result<()> {
    require_root()?;
    let port = Port::read(stdin())?;
    let Some(fence) = unseen_by(&port, paths)? else {
        return Ok(());
    };
    let text = format!(
        "the guest {} runs in the fence {fence}, which does not see what the new interface sends",
        printable(port.owner.as_bytes())
    );
    if allows_unfenced(options)? {
        notify(format_args!("warning: NOT FENCED: {text}"));
        return Ok(());
    }
    bail!(
        "{text}: shut the guest down, add the interface to its XML (virsh edit), and start it; --allow-unfenced-net among the \
         options of the hook adds it without a fence"
    )
}

/// The fence of the domain, if it has one without this interface.
fn unseen_by(port: &Port, paths: &Paths) -> Result<Option<String>> {
    let words = printable(words_of_domain(&port.owner).as_bytes());
    let fences = Fences::open(paths)?;
    let sees_not = |fence: &Description| {
        let is_of_domain = fence.attached.as_ref();
        is_of_domain.is_some_and(|attached| attached.workload == words) && !has(fence, port)
    };
    let mut names = fences.attached()?.into_iter().map(|(name, _)| name);
    let described = names.find(|name| {
        fences
            .description(name)
            .is_some_and(|fence| sees_not(&fence))
    });
    match described {
        Some(name) => Ok(Some(name)),
        None => undescribed(&fences, port, paths),
    }
}

/// A fence whose programs judge the running domain, and whose description cannot be read: it does not show whether it has the
/// interface.
fn undescribed(fences: &Fences, port: &Port, paths: &Paths) -> Result<Option<String>> {
    let all = fences.undescribed()?;
    if all.is_empty() {
        return Ok(None);
    }
    let domain = match workload::find(&Target::Domain(port.owner.clone()), paths) {
        Ok(domain) => domain,
        // It is being started, and its fence is made later.
        Err(error) if is_not_running(&error) => return Ok(None),
        Err(error) => {
            return Err(error).with_context(|| {
                format!(
                    "the fence {} has no description that can be read, and it is unknown whether the domain {} is in it",
                    all[0].0,
                    printable(port.owner.as_bytes())
                )
            });
        }
    };
    let hierarchy = Hierarchy::find(&paths.mountinfo)?;
    let above = domain.cgroup.ancestors();
    let ids: Vec<u64> = above
        .map(|path| hierarchy.other(path).id())
        .filter_map(Result::transpose)
        .collect::<Result<_, _>>()?;
    let mut all = all.into_iter();
    let judges = all.find(|(_, cgroups)| cgroups.iter().any(|cgroup| ids.contains(cgroup)));
    Ok(judges.map(|(name, _)| name))
}

/// Whether a fence has the interface: libvirt calls the hook again for those of running guests when it is restarted. An
/// interface that was detached from the guest is still described, but its device is gone, and the next one has another
/// index.
fn has(fence: &Description, port: &Port) -> bool {
    let exists = |device: &FencedDevice| if_nametoindex(&*device.name).ok() == Some(device.index);
    let mut devices = fence.devices.iter();
    port.mac
        .is_some_and(|mac| devices.any(|device| device.macs.contains(&mac) && exists(device)))
}

/// Whether the options of the hook allow networks that no fence sees.
fn allows_unfenced(options: &LibvirtHook) -> Result<bool> {
    // Only the options count here, and not whose they are.
    to_attach("network", &[], &options.options).map(|attach| attach.allow_unfenced_net)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fence_has_an_interface_as_long_as_its_device_exists() {
        let loopback = if_nametoindex("lo").unwrap();
        let fence = |name: &str, index: u32| -> Description {
            let text = format!(
                r#"{{
                    "command": ["domain vm"], "supervisor": 1, "started": "",
                    "devices": [{{
                        "name": {name:?}, "index": {index}, "netns": 1, "macs": ["52:54:00:00:00:01"],
                        "learns_mac": false
                    }}]
                }}"#
            );
            serde_json::from_str(&text).unwrap()
        };
        let port = |mac: Option<&str>| Port {
            owner: "vm".to_owned(),
            mac: mac.map(|mac| mac.parse().unwrap()),
        };
        let own = port(Some("52:54:00:00:00:01"));
        assert!(has(&fence("lo", loopback), &own));
        // It was detached, and perhaps another one got its name.
        assert!(!has(&fence("none", loopback), &own));
        assert!(!has(&fence("lo", loopback + 1), &own));
        for other in [port(Some("52:54:00:00:00:02")), port(None)] {
            assert!(!has(&fence("lo", loopback), &other));
        }
    }
}

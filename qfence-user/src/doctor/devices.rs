//! Network devices of guests: the programs at a device, the second layer where the host receives packets, and what QEMU and
//! bridges use. Fences without devices need nothing of it.

use std::{fs, io, path::Path};

use super::finding::Finding;
use crate::kernel::{
    device::{self, Method},
    local_in,
};

const DEVICES: &str = "network devices";
const LOCAL_IN: &str = "packets from guests";
const VHOST: &str = "vhost-net";
const BRIDGES: &str = "bridged frames";

/// The device by which the kernel, and not QEMU, moves the frames of a guest.
const VHOST_NET: &str = "/dev/vhost-net";

/// The setting that passes bridged frames through iptables. It exists as long as the module br_netfilter is loaded.
const CALL_IPTABLES: &str = "sys/net/bridge/bridge-nf-call-iptables";

/// Loads and attaches the programs in network namespaces that end with the check. Only root can try them.
#[must_use]
pub fn examine(proc: &Path, is_root: bool) -> Vec<Finding> {
    let mut findings = if is_root {
        vec![
            judge_devices(device::trial::attempt().map_err(|error| error.in_brief())),
            judge_local_in(local_in::attempt().map_err(|error| format!("{error:#}"))),
        ]
    } else {
        [DEVICES, LOCAL_IN].map(Finding::not_root).into()
    };
    findings.push(judge_vhost(Path::new(VHOST_NET).exists()));
    let setting = fs::read_to_string(proc.join(CALL_IPTABLES));
    findings.push(judge_bridges(setting));
    findings
}

fn judge_devices(tried: Result<Method, String>) -> Finding {
    match tried {
        Ok(Method::Tcx) => Finding::ok(DEVICES, "the programs load, and attach to a device (tcx)"),
        Ok(Method::Classic) => Finding::ok(
            DEVICES,
            "the programs load, and attach to a device by filters of traffic control; Linux 6.6 has links for them",
        ),
        Err(error) => Finding::degraded(
            DEVICES,
            format!("a guest with a tap device cannot be fenced: {error}"),
            "Linux 6.6 is needed, or older with CONFIG_NET_CLS_ACT and CONFIG_NET_CLS_BPF",
        ),
    }
}

fn judge_local_in(tried: Result<local_in::Method, String>) -> Finding {
    match tried {
        Ok(local_in::Method::Links) => Finding::ok(
            LOCAL_IN,
            "the program loads, and attaches where the host receives packets (netfilter)",
        ),
        Ok(local_in::Method::Nft) => Finding::ok(
            LOCAL_IN,
            "judged by a table of nftables, which does not count by destination; Linux 6.4 has programs for them",
        ),
        Err(error) => Finding::degraded(
            LOCAL_IN,
            format!("a guest with a tap device cannot be fenced: {error}"),
            "Linux 6.4 with CONFIG_NETFILTER_BPF_LINK is needed, or nftables and its command nft",
        ),
    }
}

fn judge_vhost(exists: bool) -> Finding {
    if exists {
        Finding::ok(
            VHOST,
            "guests with vhost=on can have it; it is fenced alike",
        )
    } else {
        Finding::degraded(
            VHOST,
            "there is no /dev/vhost-net: guests with vhost=on are slower, or do not start",
            "`modprobe vhost_net`",
        )
    }
}

/// Either is well, because the second layer sees what translation makes of a frame.
fn judge_bridges(setting: io::Result<String>) -> Finding {
    match setting {
        Ok(setting) if setting.trim() != "0" => Finding::ok(
            BRIDGES,
            "pass through the host's iptables, which can send them to the host (bridge-nf-call-iptables); the second \
             layer judges what arrives",
        ),
        Ok(_) => Finding::ok(BRIDGES, "do not pass through the host's iptables"),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Finding::ok(
            BRIDGES,
            "do not pass through the host's iptables (br_netfilter is not loaded)",
        ),
        Err(error) => Finding::degraded(
            BRIDGES,
            format!("unknown whether they pass through the host's iptables: {error}"),
            "the second layer judges what arrives, so nothing need be done",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::finding::State, *};

    #[test]
    fn either_method_will_do_and_none_means_no_guest_with_a_tap() {
        for method in [Method::Tcx, Method::Classic] {
            assert_eq!(judge_devices(Ok(method)).state, State::Ok);
        }
        for method in [local_in::Method::Links, local_in::Method::Nft] {
            assert_eq!(judge_local_in(Ok(method)).state, State::Ok);
        }
        for finding in [
            judge_devices(Err("no".into())),
            judge_local_in(Err("no".into())),
        ] {
            assert_eq!(finding.state, State::Degraded);
            assert!(
                finding.found.ends_with("cannot be fenced: no"),
                "{finding:?}"
            );
        }
    }

    #[test]
    fn bridged_frames_are_judged_whatever_the_setting_is() {
        let found = |setting| judge_bridges(setting).found;
        assert!(found(Ok("1\n".into())).starts_with("pass through"));
        assert!(found(Ok("0\n".into())).starts_with("do not"));
        let missing = judge_bridges(Err(io::ErrorKind::NotFound.into()));
        assert!(missing.found.contains("not loaded"));
        assert_eq!(missing.state, State::Ok);
        let denied = judge_bridges(Err(io::ErrorKind::PermissionDenied.into()));
        assert_eq!(denied.state, State::Degraded);
    }
}

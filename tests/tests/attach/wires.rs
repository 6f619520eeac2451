//! `attach --pod-device`: a guest in a pod whose frames leave by a tap device, connected as KubeVirt does it (by its bindings
//! masquerade and bridge), reaches the internet, and nothing of the node. Its ports answer the node.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;
use tests::{
    fence::{Fence, qfence},
    listener::Listeners,
    namespace::Namespace,
    probe::{self, ProbeResult},
    run::{to_end, wait_until},
    shell::Shell,
    tap::{Header, Tap, relay::Relay},
    world::{HOST_V4, SERVER_V4},
};

use super::{
    netns::{GATEWAY, PORT, Pod, attempt},
    scene::{Attached, Place, attach},
};

/// The node's end of the pod's wire, and the address of the pod.
const DEVICE: &str = "pod0";
const OWN: &str = "10.77.0.2";

/// The pod's network as the binding `masquerade` makes it.
const MASQUERADE: &str = "set -e
ip link add k6t-eth0 address 02:00:00:00:00:00 type bridge
ip address add 10.0.2.1/24 dev k6t-eth0
ip link set k6t-eth0 up
ip link set tap0 master k6t-eth0 up
echo 1 > /proc/sys/net/ipv4/ip_forward
nft -f - <<RULES
table ip nat {
    chain prerouting { type nat hook prerouting priority -100; iifname eth0 dnat to 10.0.2.2; }
    chain postrouting { type nat hook postrouting priority 100; ip saddr 10.0.2.2 masquerade; }
}
RULES
echo made";

/// The same by the binding `bridge`: the guest has the pod's addresses.
const BRIDGE: &str = "set -e
ip link add k6t-eth0 type bridge
ip address flush dev eth0
ip link set eth0 address 02:00:00:00:00:99 master k6t-eth0
ip link set tap0 master k6t-eth0 up
ip link set k6t-eth0 up
echo made";

/// A guest behind a tap device in a pod.
struct Guest {
    pod: Pod,
    /// A shell in the pod's network, and the address of its card before the binding.
    beside: Shell,
    mac: String,
    is_bridged: bool,
    machine: Namespace,
    host: Listeners,
    _internet: Listeners,
    _served: Listeners,
    _relay: Relay,
}

impl Guest {
    /// Makes one. `addresses` are the lines for `ip` in the guest; MAC is that of the pod's eth0.
    fn new(label: &str, binding: &str, addresses: &str) -> Result<Self> {
        let mut pod = Pod::new(label)?;
        let host = pod.world.host.clone();
        let show = "ip -o link show eth0 | sed 's/.*ether \\([^ ]*\\).*/\\1/'";
        let mac = pod.shell.ask(show)?.join("");
        ensure!(mac.len() == 17, "{mac:?}");
        let tap = host.run(|| Tap::open("tap0", Header::None))?;
        let pid = pod.shell.pid()?;
        host.ip(&format!("link set tap0 netns {pid}"))?;
        let mut beside = pod.beside()?;
        let said = beside.ask(binding)?;
        ensure!(said == ["made"], "{said:?} {}", beside.stderr());
        let machine = Namespace::new()?;
        let relay = Relay::join(tap, &machine, Header::None)?;
        machine.ip_batch(&format!(
            "link set lo up\n{}",
            addresses.replace("MAC", &mac)
        ))?;
        let address = if binding == BRIDGE { OWN } else { "10.0.2.2" };
        machine.await_local(&[address.parse()?])?;
        Ok(Self {
            host: Listeners::everywhere(&host, PORT)?,
            _internet: Listeners::everywhere(&pod.world.internet, PORT)?,
            _served: Listeners::everywhere(&machine, PORT)?,
            machine,
            beside,
            mac,
            is_bridged: binding == BRIDGE,
            pod,
            _relay: relay,
        })
    }

    fn attempt(&self, addresses: &[&str]) -> Result<Vec<ProbeResult>> {
        let of = |address: &&str| ["tcp", "udp"].map(|kind| format!("{kind}/{address}/{PORT}"));
        let attempts: Vec<_> = addresses.iter().flat_map(of).collect();
        let words = attempts.iter().map(String::as_str);
        let words: Vec<_> = ["--timeout-ms", "500"].into_iter().chain(words).collect();
        probe::run(&self.machine, &words)
    }

    /// Whether the guest reaches the node: everything or nothing, and the internet in any case. The node reaches the guest.
    fn reaches_node(&self) -> Result<bool> {
        let before = self.host.arrivals().len();
        let (node, internet) = (HOST_V4.to_string(), SERVER_V4.to_string());
        let outside = self.attempt(&[&internet])?;
        ensure!(outside.iter().all(ProbeResult::is_reached), "{outside:?}");
        let liveness = [format!("tcp/{OWN}/{PORT}"), format!("udp/{OWN}/{PORT}")];
        let liveness = liveness.each_ref().map(String::as_str);
        let liveness = probe::run(&self.pod.world.host, &liveness)?;
        ensure!(liveness.iter().all(ProbeResult::is_reached), "{liveness:?}");
        let results = self.attempt(&[GATEWAY, &node])?;
        let reached = results.iter().filter(|one| one.is_reached()).count();
        ensure!(reached == 0 || reached == results.len(), "{results:?}");
        let mut calls = results.iter().filter(|one| one.probe.starts_with("tcp"));
        let refused = calls.all(|call| call.failed_with("ECONNREFUSED"));
        ensure!(reached > 0 || refused, "{results:?}");
        let arrived = self.host.arrivals().len() - before;
        ensure!(arrived == reached, "{arrived} {results:?}");
        Ok(reached > 0)
    }

    /// Fences the wire too, with the address that the card has when the pod's containers start.
    fn attach_wire(&mut self, fence: &Fence, place: &str) -> Result<String> {
        let set = |mac: &str| format!("ip link set eth0 address {mac}");
        if self.is_bridged {
            self.beside.ask(&set(&self.mac))?;
        }
        let said = self.attach(fence, place, &["--pod-device"])?;
        if self.is_bridged {
            self.beside.ask(&set("02:00:00:00:00:99"))?;
        }
        Ok(said)
    }

    fn attach(&self, fence: &Fence, place: &str, options: &[&str]) -> Result<String> {
        // The guest is no process of the pod, as QEMU is.
        let words = ["--cgroup", place, "--detach", "--allow-unfenced-net"];
        let words = [&words[..], options].concat();
        let ended = attach(fence, &self.pod.world.host, &words)?;
        ensure!(ended.code() == Some(0), "{ended:?}");
        Ok(ended.stderr)
    }

    fn qfence(&self, words: &[&str]) -> Result<String> {
        qfence_on(&self.pod.world.host, words)
    }

    /// The first container of the pod is fenced, and then a second one; the first ends.
    fn stays_fenced_with_the_pod(mut self) -> Result<()> {
        assert!(self.reaches_node()?, "control");
        let first = Fence::new("first")?;
        let place = self.pod.place.path().display().to_string();
        self.attach(&first, &place, &[])?;
        assert!(
            self.reaches_node()?,
            "a fence at the cgroup does not see the guest"
        );
        self.qfence(&["rm", first.name()])?;

        let said = self.attach_wire(&first, &place)?;
        assert!(!self.reaches_node()?);
        let wire = wire_in(&said).context("the wire has a fence")?;
        let record = self.qfence(&["logs", &wire])?;
        assert!(record.contains(GATEWAY), "{record}");

        let second = Fence::new("second")?;
        let other = Place::new(&second)?;
        let mut sleeper = self.pod.beside()?;
        other.add(sleeper.pid()?)?;
        let said = self.attach_wire(&second, &other.path().display().to_string())?;
        assert!(
            said.contains(&format!("is of the fence {wire} already")),
            "{said}"
        );
        self.qfence(&["rm", first.name()])?;
        assert!(!self.reaches_node()?);
        self.qfence(&["rm", second.name()])?;
        assert!(!self.reaches_node()?);

        // The pod ends.
        self.pod.world.host.ip("link delete pod0")?;
        assert!(!self.qfence(&["ps"])?.contains(&wire));
        assert!(!Path::new("/sys/fs/bpf/qfence").join(wire).exists());
        drop(sleeper);
        other.remove()
    }
}

#[test]
fn a_guest_behind_the_pods_address_is_fenced_at_the_pods_wire() -> Result<()> {
    let addresses =
        "link set eth0 up\naddress add 10.0.2.2/24 dev eth0\nroute add default via 10.0.2.1\n";
    Guest::new("masquerade", MASQUERADE, addresses)?.stays_fenced_with_the_pod()
}

#[test]
fn a_guest_with_the_pods_address_is_fenced_at_the_pods_wire() -> Result<()> {
    let addresses = "link set eth0 address MAC\nlink set eth0 up\naddress add 10.77.0.2/24 dev eth0\n\
         route add default via 10.77.0.1\n";
    Guest::new("bridged", BRIDGE, addresses)?.stays_fenced_with_the_pod()
}

/// Runs qfence on a node.
fn qfence_on(node: &Namespace, words: &[&str]) -> Result<String> {
    let mut command = node.command(qfence()?);
    command.args(words);
    let ended = to_end(command)?;
    ensure!(ended.code() == Some(0), "{ended:?}");
    Ok(ended.stdout)
}

/// The name of the fence of a wire that `attach` says it has made.
fn wire_in(said: &str) -> Option<String> {
    let mut lines = said.lines();
    lines.find_map(|line| {
        let (name, _) = line
            .strip_prefix("qfence: the fence ")?
            .split_once(" is in force")?;
        name.starts_with(DEVICE).then(|| name.to_owned())
    })
}

/// Fences the pod's cgroup and wire. Returns the name of the fence of the wire.
fn fence_with_wire(pod: &Pod) -> Result<String> {
    let path = pod.place.path().display().to_string();
    let words = ["--cgroup", &path, "--detach", "--pod-device"];
    let ended = attach(&pod.fence, &pod.world.host, &words)?;
    ensure!(ended.code() == Some(0), "{ended:?}");
    wire_in(&ended.stderr).context("the wire has a fence")
}

/// Ends a pod, and with it the fence of its wire.
fn end(pod: &Pod) -> Result<()> {
    pod.world.host.ip(&format!("link delete {DEVICE}"))?;
    qfence_on(&pod.world.host, &["ps"]).map(|_| ())
}

/// Who makes a pod can choose the MAC address of its card.
#[test]
fn a_pod_with_the_address_of_the_nodes_router_cuts_nothing_off() -> Result<()> {
    let mut pod = Pod::new("routers-mac")?;
    let _host = Listeners::everywhere(&pod.world.host, PORT)?;
    let _internet = Listeners::everywhere(&pod.world.internet, PORT)?;
    let shown = pod.world.internet.ip("-o link show eth0")?;
    let mut mac = shown
        .split_whitespace()
        .skip_while(|word| *word != "link/ether");
    let mac = mac.nth(1).context("the router has an address")?;
    let said = pod
        .shell
        .ask(&format!("ip link set eth0 address {mac} && echo set"))?;
    ensure!(said == ["set"], "{said:?} {}", pod.shell.stderr());
    let mut beside = pod.beside()?;
    let reached = |shell: &mut Shell| -> Result<usize> {
        let results = attempt(shell, &[GATEWAY])?;
        Ok(results.iter().filter(|one| one.is_reached()).count())
    };
    assert_eq!(reached(&mut beside)?, 2, "control");
    fence_with_wire(&pod)?;
    assert_eq!(reached(&mut beside)?, 0);
    let out = ["tcp", "udp"].map(|kind| format!("{kind}/{SERVER_V4}/{PORT}"));
    let out = probe::run(&pod.world.host, &out.each_ref().map(String::as_str))?;
    assert!(out.iter().all(ProbeResult::is_reached), "{out:?}");
    end(&pod)
}

/// A wire has none of the exceptions for a guest whose network the host makes.
#[test]
fn a_pod_reaches_no_nameserver_of_the_node_by_its_wire() -> Result<()> {
    const DNS: u16 = 53;
    let pod = Pod::new("dns-of-node")?;
    let _host = Listeners::everywhere(&pod.world.host, DNS)?;
    let mut beside = pod.beside()?;
    let calls = ["tcp", "udp"].map(|kind| format!("{kind}/{GATEWAY}/{DNS}"));
    let mut reached = || -> Result<usize> {
        let results = beside.attempt(&calls.each_ref().map(String::as_str))?;
        Ok(results.iter().filter(|one| one.is_reached()).count())
    };
    assert_eq!(reached()?, 2, "control");
    fence_with_wire(&pod)?;
    assert_eq!(reached()?, 0);
    end(&pod)
}

/// The fence of a container shows that a wire of its pod is not fenced any more, or that the pod has another way out.
#[test]
fn a_fence_shows_what_leaves_its_pod_unfenced() -> Result<()> {
    let mut pod = Pod::new("wired")?;
    let wire = fence_with_wire(&pod)?;
    let host = pod.world.host.clone();
    let unfenced = |name: &str| -> Result<Value> {
        let rows = qfence_on(&host, &["ps", "--json"])?;
        let rows: Vec<Value> = serde_json::from_str(&rows)?;
        let row = rows.into_iter().find(|row| row["name"] == name);
        let row = row.context("it is listed")?;
        let is_unfenced = row["state"] == "unfenced";
        ensure!(
            is_unfenced == (row["unfenced_devices"] != serde_json::json!([])),
            "{row}"
        );
        Ok(row["unfenced_devices"].clone())
    };
    let name = pod.fence.name().to_owned();
    assert_eq!(unfenced(&name)?, serde_json::json!([]), "control");
    let pid = pod.shell.pid()?;
    host.ip(&format!(
        "link add pod1 type veth peer name eth1 netns {pid}"
    ))?;
    assert_eq!(unfenced(&name)?, serde_json::json!(["pod1"]));
    host.ip("link delete pod1")?;
    assert_eq!(unfenced(&name)?, serde_json::json!([]));
    pod.shell.ask("ip link add other0 link eth0 type macvlan")?;
    assert_eq!(unfenced(&name)?, serde_json::json!(["other0"]));
    pod.shell.ask("ip link delete other0")?;
    qfence_on(&host, &["rm", &wire])?;
    assert_eq!(unfenced(&name)?, serde_json::json!([DEVICE]));
    Ok(())
}

/// What is given for the target alone is not for the wire.
#[test]
fn a_pod_with_a_wire_can_have_a_supervisor_and_a_log() -> Result<()> {
    let mut pod = Pod::new("logged-wire")?;
    let _host = Listeners::everywhere(&pod.world.host, PORT)?;
    let path = pod.place.path().display().to_string();
    let words = ["--cgroup", &path, "--pod-device"];
    let mut attached = Attached::start(&pod.fence, &pod.world.host, &words)?;
    let in_force = format!("the fence {} is in force", pod.fence.name());
    // The wire was first.
    wait_until("the cgroup is fenced", || {
        Ok(attached.stderr().contains(&in_force))
    })?;
    let results = attempt(&mut pod.shell, &[GATEWAY])?;
    assert!(!results.iter().any(ProbeResult::is_reached), "{results:?}");
    pod.fence.await_refusal(|refusal| refusal.port == PORT)?;
    attached.signal(Signal::SIGINT)?;
    attached.ensure_success()?;
    end(&pod)
}

/// Neither container is let go on before the wire is fenced, and neither fails because the other was first.
#[test]
fn containers_of_a_pod_that_start_together_share_a_wire() -> Result<()> {
    let pod = Pod::new("together")?;
    let _host = Listeners::everywhere(&pod.world.host, PORT)?;
    let mut beside = pod.beside()?;
    let other = Fence::new("other")?;
    let place = Place::new(&other)?;
    let mut sleeper = pod.beside()?;
    place.add(sleeper.pid()?)?;
    for _ in 0..4 {
        assert!(
            attempt(&mut beside, &[GATEWAY])?
                .iter()
                .all(ProbeResult::is_reached)
        );
        let one = pod.place.path().display().to_string();
        let two = place.path().display().to_string();
        let fence = |fence: &Fence, path: &str| {
            let words = ["--cgroup", path, "--detach", "--pod-device"];
            attach(fence, &pod.world.host, &words)
        };
        let ended = std::thread::scope(|scope| {
            let first = scope.spawn(|| fence(&pod.fence, &one));
            let second = fence(&other, &two);
            [first.join().unwrap(), second]
        });
        let mut wires = Vec::new();
        for ended in ended {
            let ended = ended?;
            ensure!(ended.code() == Some(0), "{ended:?}");
            wires.extend(wire_in(&ended.stderr));
        }
        let [wire] = &wires[..] else {
            panic!("one fence has the wire: {wires:?}");
        };
        let results = attempt(&mut beside, &[GATEWAY])?;
        assert!(!results.iter().any(ProbeResult::is_reached), "{results:?}");
        for name in [pod.fence.name(), other.name(), wire] {
            qfence_on(&pod.world.host, &["rm", name])?;
        }
    }
    drop(sleeper);
    place.remove()
}

/// Nothing is left unfenced in silence.
#[test]
fn a_pod_whose_network_does_not_pass_the_node_is_refused() -> Result<()> {
    let mut pod = Pod::new("elsewhere")?;
    let refused = |pod: &Pod, reason: &str| -> Result<()> {
        let path = pod.place.path().display().to_string();
        let words = ["--cgroup", &path, "--detach", "--pod-device"];
        let ended = attach(&pod.fence, &pod.world.host, &words)?;
        ensure!(ended.code() == Some(125), "{ended:?}");
        ensure!(ended.stderr.contains(reason), "{ended:?}");
        Ok(())
    };
    let said = pod
        .shell
        .ask("ip link add other0 link eth0 type macvlan && echo made")?;
    ensure!(said == ["made"], "{said:?}");
    refused(&pod, "other0 is a device of the kind macvlan")?;
    pod.shell.ask("ip link delete other0; echo deleted")?;

    // The other end of its wire is in a third namespace.
    let other = Namespace::new()?;
    let to = other.path().display().to_string();
    pod.world
        .host
        .ip(&format!("link set {DEVICE} netns {to}"))?;
    refused(&pod, "eth0 is a veth device")?;
    pod.shell.ask("ip link delete eth0; echo deleted")?;
    refused(&pod, "has no veth pair")?;
    assert!(!attempt(&mut pod.shell, &[GATEWAY])?.is_empty());
    Ok(())
}

/// Pairs with both ends in the pod lead nowhere, and are no wires; of too many devices none is read.
#[test]
fn a_pod_can_have_some_pairs_of_its_own() -> Result<()> {
    let mut pod = Pod::new("own-pairs")?;
    let add = |pod: &mut Pod, numbers: &str| -> Result<()> {
        let line = format!(
            "for i in {numbers}; do echo link add a$i type veth peer name b$i; done | ip -batch - && echo made"
        );
        let said = pod.shell.ask(&line)?;
        ensure!(said == ["made"], "{said:?} {}", pod.shell.stderr());
        Ok(())
    };
    add(&mut pod, "0")?;
    fence_with_wire(&pod)?;
    qfence_on(&pod.world.host, &["rm", pod.fence.name()])?;
    add(&mut pod, "$(seq 512)")?;
    let path = pod.place.path().display().to_string();
    let words = ["--cgroup", &path, "--detach", "--pod-device"];
    let ended = attach(&pod.fence, &pod.world.host, &words)?;
    assert_eq!(ended.code(), Some(125), "{ended:?}");
    assert!(
        ended.stderr.contains("more than 1024 network devices"),
        "{ended:?}"
    );
    end(&pod)
}

/// A machine in the pod needs a tap device. What leaves by it passes the wire; what leaves by a socket to the node does not.
#[test]
fn tap_devices_may_be_opened_in_a_pod_whose_wire_is_fenced() -> Result<()> {
    let mut pod = Pod::new("taps-of-pod")?;
    let directory = tempfile::tempdir()?;
    let vsock = directory.path().join("vsock").display().to_string();
    pod.shell.ask(&format!("mknod {vsock} c 10 241"))?;
    let mut opens = |device: &str| -> Result<bool> {
        let said = pod
            .shell
            .ask(&format!("sh -c ': <>{device}' 2>&1 && echo opened"))?;
        let is_refused = said.join("").contains("not permitted");
        ensure!(
            is_refused || said == ["opened"] || !device.contains("tun"),
            "{said:?}"
        );
        Ok(!is_refused)
    };
    let tun = "/dev/net/tun";
    assert!(opens(tun)? && opens(&vsock)?, "control");
    let path = pod.place.path().display().to_string();
    let words = ["--cgroup", &path, "--detach"];
    for (options, may_open_tun) in [(&[][..], false), (&["--pod-device"], true)] {
        let ended = attach(&pod.fence, &pod.world.host, &[&words, options].concat())?;
        ensure!(ended.code() == Some(0), "{ended:?}");
        assert_eq!(opens(tun)?, may_open_tun, "{options:?}");
        assert!(!opens(&vsock)?, "{options:?}");
        let mut rm = pod.world.host.command(qfence()?);
        rm.args(["rm", pod.fence.name()]);
        ensure!(to_end(rm)?.code() == Some(0));
    }
    end(&pod)
}

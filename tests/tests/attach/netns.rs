//! `attach` to a workload with a network namespace of its own, as containers have it: the host is this machine at all its
//! addresses, and the workload's own addresses are none of the internet's.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tests::{
    fence::{Fence, qfence},
    listener::Listeners,
    probe::{self, ProbeResult},
    run::{to_end, wait_until},
    shell::Shell,
    world::{HOST_V4, SERVER_V4, World},
};

use super::scene::{Attached, Place, attach, listed, remove};
use crate::established::scene::serve;

pub(super) const PORT: u16 = 8080;

/// The two ends of the wire between host and workload, and another address of the workload.
pub(super) const GATEWAY: &str = "10.77.0.1";
const OWN: &str = "10.77.0.2";
const LATER: &str = "10.77.0.3";

/// A workload with a network namespace of its own, in a cgroup of others.
pub(super) struct Pod {
    pub(super) world: World,
    pub(super) place: Place,
    pub(super) fence: Fence,
    /// The first process.
    pub(super) shell: Shell,
    pid: u32,
}

impl Pod {
    pub(super) fn new(label: &str) -> Result<Self> {
        let world = World::new()?;
        let fence = Fence::new(label)?;
        let place = Place::new(&fence)?;
        let mut command = world.host.command("unshare");
        command.args(["--net", "--mount", "sh"]);
        let mut shell = Shell::start(command)?;
        let pid = shell.pid()?;
        place.add(pid)?;
        world.host.ip_batch(&format!(
            "link add pod0 type veth peer name eth0 netns {pid}\n\
             address add {GATEWAY}/24 dev pod0\n\
             link set pod0 up\n"
        ))?;
        world.host.sysctl("net/ipv4/ip_forward", "1")?;
        let back = format!("route add 10.77.0.0/24 via {HOST_V4}");
        world.internet.ip(&back)?;
        let network = format!(
            "ip link set lo up && ip address add {OWN}/24 dev eth0 && ip link set eth0 up && \
             ip route add default via {GATEWAY}"
        );
        ensure!(shell.ask(&network)?.is_empty(), "{}", shell.stderr());
        Ok(Self {
            world,
            place,
            fence,
            shell,
            pid,
        })
    }

    /// A shell in the namespace that is not in the cgroup.
    pub(super) fn beside(&self) -> Result<Shell> {
        let mut command = self.world.host.command("nsenter");
        let net = format!("--net=/proc/{}/ns/net", self.pid);
        command.args([&net, "sh"]);
        Shell::start(command)
    }

    fn attach(&self, options: &[&str]) -> Result<Attached> {
        let path = self.place.path().display().to_string();
        let words = [&["--cgroup", &path], options].concat();
        Attached::start(&self.fence, &self.world.host, &words)
    }

    /// Changes the policy of its fence.
    fn set(&self, rules: &[&str]) -> Result<()> {
        let mut set = self.world.host.command(qfence()?);
        set.args(["set", self.fence.name()]).args(rules);
        let ended = to_end(set)?;
        ensure!(ended.code() == Some(0), "{ended:?}");
        Ok(())
    }

    /// What `policy show` shows.
    fn show(&self) -> Result<Value> {
        let mut show = self.world.host.command(qfence()?);
        show.args(["policy", "show", self.fence.name(), "--json"]);
        Ok(serde_json::from_str(&to_end(show)?.stdout)?)
    }

    /// The members of the set `dns`.
    fn nameservers(&self) -> Result<Value> {
        let shown = self.show()?;
        let sets = shown["sets"].as_array().context("the policy has sets")?;
        let dns = sets.iter().find(|set| set["set"] == "dns");
        Ok(dns.context("the policy names dns")?["members"].clone())
    }

    /// Replaces the resolv.conf of the workload, in its mount namespace.
    fn write_resolv_conf(&mut self, text: &str) -> Result<()> {
        let line = format!(
            "mount -t tmpfs tmpfs /mnt && echo '{text}' >/mnt/resolv.conf && mount --bind /mnt/resolv.conf /etc/resolv.conf"
        );
        let said = self.shell.ask(&line)?;
        ensure!(
            said.is_empty() && self.shell.stderr().is_empty(),
            "{said:?}"
        );
        Ok(())
    }
}

fn attempts(addresses: &[&str]) -> Vec<String> {
    let of = |address: &&str| ["tcp", "udp"].map(|protocol| format!("{protocol}/{address}/{PORT}"));
    addresses.iter().flat_map(of).collect()
}

pub(super) fn attempt(shell: &mut Shell, addresses: &[&str]) -> Result<Vec<ProbeResult>> {
    let attempts = attempts(addresses);
    let words: Vec<&str> = attempts.iter().map(String::as_str).collect();
    shell.attempt(&words)
}

fn assert_reached(results: &[ProbeResult]) {
    for result in results {
        assert!(result.is_reached(), "{result:?}");
    }
}

fn assert_refused(results: &[ProbeResult]) {
    for result in results {
        assert!(result.failed_with("ECONNREFUSED"), "{result:?}");
    }
}

/// Also an address that the workload gets later is refused by the call already, and the namespace ends with the workload.
#[test]
fn the_host_is_the_machine_and_the_workload_at_all_addresses() -> Result<()> {
    let mut pod = Pod::new("attach-netns")?;
    let host = Listeners::everywhere(&pod.world.host, PORT)?;
    let _internet = Listeners::everywhere(&pod.world.internet, PORT)?;
    let services = serve_in(&pod)?;
    let node = HOST_V4.to_string();
    let all = [GATEWAY, &node, OWN, "127.0.0.1"];
    assert_reached(&attempt(&mut pod.shell, &all)?);
    let arrived = host.arrivals().len();
    assert_eq!(arrived, 4, "control");

    let attached = pod.attach(&[])?;
    let said = attached.stderr();
    assert!(said.contains("--pod-loopback"), "{said}");
    assert_refused(&attempt(&mut pod.shell, &all)?);
    assert_eq!(host.arrivals().len(), arrived);
    let internet = SERVER_V4.to_string();
    assert_reached(&attempt(&mut pod.shell, &[&internet])?);
    // Of the calls, not of the packets only.
    for address in [GATEWAY, OWN] {
        let refusal = pod
            .fence
            .await_refusal(|refusal| refusal.destination == address)?;
        assert!(refusal.hook.starts_with("connect"), "{refusal:?}");
    }

    let add = format!("ip address add {LATER}/32 dev lo");
    pod.beside()?.ask(&add)?;
    wait_until(
        "the call to a new address of the workload is refused",
        || {
            let results = attempt(&mut pod.shell, &[LATER])?;
            assert!(!results.iter().any(ProbeResult::is_reached), "{results:?}");
            Ok(results
                .iter()
                .all(|result| result.failed_with("ECONNREFUSED")))
        },
    )?;

    drop(services);
    pod.shell.kill_supervisor()?;
    pod.shell.wait()?;
    wait_until("the namespace has ended, and with it the wire", || {
        Ok(!pod.world.host_ip("link show")?.contains("pod0"))
    })?;
    // The fence is still there: its cgroup is.
    assert_eq!(
        listed(&pod.fence)?["state"],
        "running",
        "{}",
        attached.stderr()
    );
    Ok(())
}

/// Serves in the workload's namespace, outside of its cgroup.
fn serve_in(pod: &Pod) -> Result<Shell> {
    let mut command = pod.world.host.command("nsenter");
    command.args([&format!("--net=/proc/{}/ns/net", pod.pid), "sh"]);
    serve(command, &format!("tcp/{PORT} udp/{PORT}"))
}

#[test]
fn services_of_the_pod_are_reached_with_the_option_and_only_there() -> Result<()> {
    let mut pod = Pod::new("attach-pod")?;
    let host = Listeners::everywhere(&pod.world.host, PORT)?;
    let _services = serve_in(&pod)?;
    let attached = pod.attach(&["--pod-loopback"])?;
    let said = attached.stderr();
    assert!(!said.contains("--pod-loopback"), "{said}");
    assert_reached(&attempt(&mut pod.shell, &[OWN, "127.0.0.1", "127.9.9.9"])?);
    let node = HOST_V4.to_string();
    assert_refused(&attempt(&mut pod.shell, &[GATEWAY, &node])?);
    let own = pod.show()?["pod_loopback"].clone();
    let own = own.as_array().context("the exception is shown")?;
    assert!(
        own.contains(&OWN.into()) && !own.contains(&GATEWAY.into()),
        "{own:?}"
    );

    // A route can lead loopback addresses to the machine, which then takes them for its own.
    for device in ["all", "pod0"] {
        let sysctl = format!("net/ipv4/conf/{device}/route_localnet");
        pod.world.host.sysctl(&sysctl, "1")?;
    }
    let mut beside = pod.beside()?;
    let turn = format!(
        "echo 1 >/proc/sys/net/ipv4/conf/all/route_localnet; ip address flush dev lo; \
         ip route add 127.0.0.0/8 via {GATEWAY} src {OWN}"
    );
    assert!(beside.ask(&turn)?.is_empty(), "{}", beside.stderr());
    let before = host.arrivals().len();
    assert_reached(&attempt(&mut beside, &["127.0.0.1"])?);
    let after = host.arrivals().len();
    assert_eq!(
        after,
        before + 2,
        "control: the machine is reached: {}",
        beside.stderr()
    );
    for result in attempt(&mut pod.shell, &["127.0.0.1"])? {
        assert!(!result.is_reached(), "{result:?}");
    }
    assert_eq!(host.arrivals().len(), after);
    Ok(())
}

#[test]
fn the_option_is_refused_where_loopback_is_the_machines() -> Result<()> {
    let world = World::new()?;
    let fence = Fence::new("attach-no-pod")?;
    let place = Place::new(&fence)?;
    let _shell = place.shell(&world.host)?;
    let path = place.path().display().to_string();
    let ended = attach(&fence, &world.host, &["--cgroup", &path, "--pod-loopback"])?;
    assert_eq!(ended.code(), Some(125), "{ended:?}");
    assert!(
        ended
            .stderr
            .contains("no process in a network namespace of its own"),
        "{ended:?}"
    );
    assert_eq!(listed(&fence)?, Value::Null);
    Ok(())
}

/// A request of the machine by UDP is answered, to the port that it came from, and nothing else is opened.
#[test]
fn the_machine_is_answered_by_udp() -> Result<()> {
    const INSIDE: u16 = 5000;
    const PEER: u16 = 6000;
    let mut pod = Pod::new("attach-answer")?;
    let host = Listeners::everywhere(&pod.world.host, PORT)?;
    let program = probe::program()?.display().to_string();
    pod.shell
        .tell(&format!("{program} --serve udp/{INSIDE} &"))?;
    assert_eq!(pod.shell.next_line()?, "serving");
    let _attached = pod.attach(&[])?;
    let ask = format!("udp/{OWN}/{INSIDE}+port={PEER}+reuse");
    let asked = probe::run(&pod.world.host, &["--timeout-ms", "5000", &ask])?;
    assert!(
        asked
            .iter()
            .all(|result| result.says("hello from the probe")),
        "{asked:?}"
    );

    for (from, to) in [(INSIDE, PORT), (INSIDE + 1, PEER)] {
        let attempt = format!("udp/{GATEWAY}/{to}+port={from}+reuse");
        assert_refused(&pod.shell.attempt(&[&attempt])?);
    }
    // An answer to a datagram that a rule allows is no request.
    let node = HOST_V4.to_string();
    pod.set(&["--allow", &format!("udp:{node}:{PORT}")])?;
    let to = |address: &str, port: u16| format!("udp/{address}/{port}+port=7000+reuse");
    let allowed = pod.shell.attempt(&[&to(&node, PORT)])?;
    assert!(
        allowed.iter().all(|result| result.says("hello from")),
        "{allowed:?}"
    );
    pod.set(&["--deny", &format!("udp:{node}")])?;
    assert_refused(&pod.shell.attempt(&[&to(&node, PORT)])?);
    assert_eq!(host.arrivals().len(), 1);
    Ok(())
}

#[test]
fn nameservers_are_those_of_the_workloads_own_resolv_conf() -> Result<()> {
    let mut pod = Pod::new("attach-dns")?;
    let _host = Listeners::everywhere(&pod.world.host, 53)?;
    pod.write_resolv_conf(&format!("nameserver {GATEWAY}"))?;
    let _attached = pod.attach(&[])?;
    let dns = |address: &str| format!("udp/{address}/53");
    let node = HOST_V4.to_string();
    let results = pod.shell.attempt(&[&dns(GATEWAY), &dns(&node)])?;
    assert_reached(&results[..1]);
    assert_refused(&results[1..]);
    // Whoever is root in the workload can write the file, and opens nothing by that.
    pod.shell
        .ask(&format!("echo nameserver {node} >/etc/resolv.conf"))?;
    // A change of the policy reads nothing again.
    pod.set(&["--allow", "tcp:198.18.0.1:9"])?;
    assert_eq!(pod.nameservers()?, serde_json::json!([GATEWAY]));
    assert_refused(&pod.shell.attempt(&[&dns(&node)])?);
    assert_reached(&pod.shell.attempt(&[&dns(GATEWAY)])?);
    Ok(())
}

/// Links of the workload's are followed within its own files, and what cannot be read is a warning.
#[test]
fn a_resolv_conf_that_leads_elsewhere_is_not_followed() -> Result<()> {
    let to_node = "ln -s /proc/1/root/etc/resolv.conf /etc/resolv.conf";
    for (make, said, members) in [
        ("mkfifo /etc/resolv.conf", Some("it is a FIFO"), &[][..]),
        (
            "ln -s /dev/zero /etc/resolv.conf",
            Some("it is a device"),
            &[],
        ),
        (to_node, Some("cannot read the resolv.conf"), &[]),
        ("true", None, &[]),
        (
            "ln -s ../../../etc/other /etc/resolv.conf && echo nameserver 10.77.0.1 >/etc/other",
            None,
            &[GATEWAY],
        ),
    ] {
        let mut pod = Pod::new("attach-link")?;
        let line = format!("mount -t tmpfs tmpfs /etc && {make}");
        ensure!(pod.shell.ask(&line)?.is_empty(), "{}", pod.shell.stderr());
        let path = pod.place.path().display().to_string();
        let words = ["--cgroup", &path, "--detach"];
        let ended = attach(&pod.fence, &pod.world.host, &words)?;
        assert_eq!(ended.code(), Some(0), "{make}: {ended:?}");
        let warned = ended.stderr.contains("no nameserver of");
        assert_eq!(warned, said.is_some(), "{make}: {ended:?}");
        let is_said = said.is_none_or(|said| ended.stderr.contains(said));
        assert!(is_said, "{make}: {ended:?}");
        assert_eq!(pod.nameservers()?, serde_json::json!(members), "{make}");
        remove(&pod.fence)?;
    }
    Ok(())
}

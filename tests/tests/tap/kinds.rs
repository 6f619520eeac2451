//! Other devices than tap: the host's end of a container's wire, and macvtap, whose programs are attached the other way
//! round.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::Path,
};

use anyhow::{Context as _, Result, ensure};
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sys::stat::{Mode, SFlag, makedev, mknod},
};
use tests::{
    fence::Fence,
    listener::Listeners,
    namespace::Namespace,
    probe,
    run::without_sudo,
    shell::Shell,
    tap::{
        Header, Link, Scene, Tap,
        answer::{Answer, answers},
        evidence::Evidence,
        scene::{self, HOST, PORT, SERVER_V4, SERVER_V6},
        wire::{self, Mac},
    },
};

use super::{matrix::kind, stack::probes};

fn fenced(scene: &Scene, label: &str, device: &str, mac: &str) -> Result<(Fence, Shell)> {
    let fence = Fence::new(label)?.with(&["--device", device, "--mac", mac]);
    let mut command = fence.command(&scene.host, "sh");
    without_sudo(&mut command);
    let shell = Shell::start(command)?;
    Ok((fence, shell))
}

/// A container on a wire of its own.
fn container(scene: &Scene) -> Result<Namespace> {
    let container = Namespace::new()?;
    container.sysctl("net/ipv4/ping_group_range", "0 2147483647")?;
    container.sysctl("net/ipv6/conf/all/accept_dad", "0")?;
    let there = container.path();
    scene.host.ip_batch(&format!(
        "link add box0 type veth peer name eth0 address 02:00:00:00:00:88 netns {}\n\
         link set box0 up\naddress add 10.88.0.1/24 dev box0\naddress add fd88::1/64 dev box0 nodad\n",
        there.display()
    ))?;
    container.ip_batch(
        "link set lo up\nlink set eth0 up\naddress add 10.88.0.2/24 dev eth0\n\
         address add fd88::2/64 dev eth0 nodad\n\
         route add default via 10.88.0.1\nroute add default via fd88::1\n",
    )?;
    container.await_local(&["10.88.0.2".parse()?, "fd88::2".parse()?])?;
    Ok(container)
}

#[test]
fn a_container_is_fenced_by_the_hosts_end_of_its_wire() -> Result<()> {
    let scene = scene::lay_out(kind(Link::Routed, Header::None, false))?;
    let container = container(&scene)?;
    let served = Listeners::everywhere(&container, PORT)?;
    // The addresses of the tap's network have no carrier here.
    let own: [IpAddr; 2] = [
        IpAddr::V4(Ipv4Addr::new(10, 88, 0, 1)),
        IpAddr::V6(Ipv6Addr::new(0xfd88, 0, 0, 0, 0, 0, 0, 1)),
    ];
    let hosts: Vec<_> = own.into_iter().chain(HOST).collect();
    let hosts = probes(&["tcp", "udp", "ping"], &hosts);
    let servers = probes(&["tcp", "udp", "ping"], &[SERVER_V4, SERVER_V6]);
    let inside = |probes: &[String]| {
        let mut words = vec!["--timeout-ms", "1500"];
        words.extend(probes.iter().map(String::as_str));
        probe::run(&container, &words)
    };
    for outcome in inside(&hosts)?.into_iter().chain(inside(&servers)?) {
        ensure!(outcome.is_reached(), "control: {outcome:?}");
    }
    let before = scene.arrivals().len();
    let (fence, shell) = fenced(&scene, "container", "box0", "02:00:00:00:00:88")?;
    for outcome in inside(&hosts)? {
        ensure!(!outcome.is_reached(), "{outcome:?}");
        let is_tcp = outcome.probe.starts_with("tcp");
        ensure!(
            !is_tcp || outcome.failed_with("ECONNREFUSED"),
            "{outcome:?}"
        );
    }
    for outcome in inside(&servers)? {
        ensure!(outcome.is_reached(), "{outcome:?}\n{}", shell.stderr());
    }
    let begun = ["10.88.0.2", "fd88::2"].map(|address| format!("tcp/{address}/{PORT}"));
    for outcome in probe::run(&scene.host, &begun.each_ref().map(String::as_str))? {
        ensure!(outcome.is_reached(), "{outcome:?}");
    }
    ensure!(scene.arrivals().len() == before);
    ensure!(served.arrivals().len() == 2);
    fence.await_refusal(|refusal| refusal.destination == "10.88.0.1")?;
    Ok(())
}

const MACVTAP_MAC: Mac = [2, 0, 0, 0, 0, 0x44];
const MACVLAN_MAC: Mac = [2, 0, 0, 0, 0, 0x45];

/// Opens the macvtap device of this name on the host, as a machine does.
fn open_macvtap(scene: &Scene, name: &str) -> Result<Tap> {
    scene.host.run(|| {
        const NONE: Option<&str> = None;
        // The machine's /sys shows the devices of another network namespace.
        mount(Some("sysfs"), "/mnt", Some("sysfs"), MsFlags::empty(), NONE)
            .context("mount sysfs")?;
        let numbers = || -> Result<String> {
            let directory = Path::new("/mnt/class/net").join(name).join("macvtap");
            let entry = fs::read_dir(&directory)?
                .next()
                .context("a device without a file")??;
            Ok(fs::read_to_string(entry.path().join("dev"))?)
        };
        let numbers = numbers();
        umount2("/mnt", MntFlags::MNT_DETACH)?;
        let numbers = numbers?;
        let (major, minor) = numbers.trim().split_once(':').context("two numbers")?;
        let file = Path::new("/etc").join(name);
        let mode = Mode::from_bits_truncate(0o600);
        mknod(
            &file,
            SFlag::S_IFCHR,
            mode,
            makedev(major.parse()?, minor.parse()?),
        )?;
        Tap::open_file(&file, Header::None)
    })
}

/// A guest reaches the host by another device on the same lower device, as the kernel bridges them.
#[test]
fn a_guest_with_macvtap_does_not_reach_the_hosts_device_beside_it() -> Result<()> {
    let scene = scene::lay_out(kind(Link::Routed, Header::None, false))?;
    scene.host.ip_batch(
        "link add link nic2 name mvt0 address 02:00:00:00:00:44 type macvtap mode bridge\n\
         link add link nic2 name mvh0 address 02:00:00:00:00:45 type macvlan mode bridge\n\
         link set mvt0 up\nlink set mvh0 up\naddress add 10.66.0.1/24 dev mvh0\n\
         neighbour replace 10.66.0.2 lladdr 02:00:00:00:00:44 dev mvh0 nud permanent\n",
    )?;
    let host: IpAddr = "10.66.0.1".parse()?;
    let guest: IpAddr = "10.66.0.2".parse()?;
    scene.host.await_local(&[host])?;
    let tap = open_macvtap(&scene, "mvt0")?;
    let mut evidence = Evidence::new(scene.host.as_ref(), "mvh0", scene.internet.as_ref(), None)?;
    evidence.settle()?;
    let frame = |packet: &[u8]| wire::packet(MACVTAP_MAC, MACVLAN_MAC, packet);
    let mut port = 20_000;
    let mut try_all = |evidence: &mut Evidence| -> Result<(u64, Vec<Answer>)> {
        tap.drain()?;
        let before = evidence.arrived()?;
        port += 1;
        tap.send(&frame(&wire::tcp((guest, port), (host, PORT), wire::SYN)))?;
        tap.send(&frame(&wire::udp((guest, port), (host, PORT), b"macvtap")))?;
        tap.send(&frame(&wire::ping(guest, host, port)))?;
        std::thread::sleep(std::time::Duration::from_millis(100));
        let delivered = evidence.arrived()?.since(before).delivered;
        Ok((delivered, answers(&tap.drain()?)))
    };
    let (delivered, said) = try_all(&mut evidence)?;
    ensure!(
        delivered == 3 && said == [Answer::Accepted, Answer::Datagram, Answer::Echo],
        "control: {delivered} {said:?}"
    );
    let (_fence, shell) = fenced(&scene, "macvtap", "mvt0", "02:00:00:00:00:44")?;
    let (delivered, said) = try_all(&mut evidence)?;
    ensure!(
        delivered == 0 && said == [Answer::Reset, Answer::Prohibited],
        "{delivered} {said:?}\n{}",
        shell.stderr()
    );
    Ok(())
}

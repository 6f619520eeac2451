//! A resolv.conf that cannot be read: the host's addresses are followed all the same, and no nameserver is excepted
//! until it can be read again.

use std::{fs, net::IpAddr, path::Path};

use anyhow::{Context as _, Result};
use nix::{sys::stat::Mode, unistd::mkfifo};
use tests::{
    fence::{Fence, qfence, unique_name},
    listener::Listeners,
    probe::ProbeResult,
    run::{to_end, wait_until},
    shell::Shell,
    world::World,
};

const PORT: u16 = 8080;
const RESOLV_CONF: &str = "/etc/resolv.conf";
const NEW: [IpAddr; 4] = [
    IpAddr::V4(std::net::Ipv4Addr::new(198, 51, 100, 77)),
    IpAddr::V4(std::net::Ipv4Addr::new(198, 51, 100, 78)),
    IpAddr::V4(std::net::Ipv4Addr::new(198, 51, 100, 79)),
    IpAddr::V4(std::net::Ipv4Addr::new(198, 51, 100, 80)),
];

/// The way of [`spoil`] that removes it.
const GONE: usize = 3;

/// Makes it unreadable, or removes it, each time in another way: the word for what it is then.
fn spoil(world: &World, way: usize) -> Result<&'static str> {
    world.host.run(|| {
        let path = Path::new(RESOLV_CONF);
        fs::remove_file(path).or_else(|_| fs::remove_dir(path))?;
        Ok(match way {
            0 => {
                fs::create_dir(path)?;
                "it is a directory"
            }
            1 => {
                mkfifo(path, Mode::S_IRWXU)?;
                "it is a FIFO"
            }
            GONE => "is gone",
            _ => {
                fs::write(path, "nameserver 127.0.0.1\n".repeat(100_000))?;
                "it has more than 65536 bytes, which is the limit"
            }
        })
    })
}

fn mend(world: &World, text: &str) -> Result<()> {
    world.host.run(|| {
        let _ = fs::remove_dir(RESOLV_CONF);
        Ok(())
    })?;
    world.write_resolv_conf(text)
}

#[test]
fn addresses_are_followed_and_no_nameserver_is_excepted_while_it_cannot_be_read() -> Result<()> {
    let world = World::new()?;
    world.write_resolv_conf("nameserver 127.0.0.53\n")?;
    let fence = Fence::new("resolv")?.with(&["--user", "nobody"]);
    let mut shell = Shell::start(fence.command(&world.host, "sh"))?;
    let services = Listeners::everywhere(&world.host, PORT)?;
    let _dns = Listeners::everywhere(&world.host, 53)?;
    let refused = |shell: &mut Shell, attempt: String| -> Result<bool> {
        Ok(shell.attempt(&[&attempt])?[0].failed_with("ECONNREFUSED"))
    };
    for (way, address) in NEW.into_iter().enumerate() {
        // The control: DNS works before.
        wait_until("the nameserver is excepted", || {
            Ok(shell.attempt(&["tcp/127.0.0.53/53"])?[0].is_reached())
        })
        .with_context(|| shell.stderr())?;
        let why = spoil(&world, way)?;
        let said = match way {
            GONE => format!("warning: {RESOLV_CONF} {why}"),
            _ => format!("error: cannot read {RESOLV_CONF}: {why}"),
        };
        wait_until(&said, || Ok(shell.stderr().contains(&said))).with_context(|| shell.stderr())?;
        world.add_host_address(address, "lo")?;
        // The control: without the fence it is reached.
        let outside = world
            .host
            .run(|| Ok(std::net::TcpStream::connect((address, PORT)).is_ok()))?;
        assert!(outside, "{address}");
        // By the layer of calls, which goes by addresses: this way the packet layer has another error.
        let attempt = format!("udp/{address}/{PORT}");
        wait_until(&format!("{address} is refused"), || {
            refused(&mut shell, attempt.clone())
        })
        .with_context(|| shell.stderr())?;
        let nameserver = shell.attempt(&["tcp/127.0.0.53/53", "udp/127.0.0.53/53"])?;
        let is_refused = |outcome: &ProbeResult| outcome.failed_with("ECONNREFUSED");
        assert!(nameserver.iter().all(is_refused), "{nameserver:?}");
        mend(&world, "nameserver 127.0.0.53\n")?;
        let mended = format!("{RESOLV_CONF} can be read again");
        wait_until(&mended, || {
            Ok(shell.stderr().matches(&mended).count() == way + 1)
        })
        .with_context(|| shell.stderr())?;
        assert_eq!(
            shell.stderr().matches(&said).count(),
            1,
            "{}",
            shell.stderr()
        );
    }
    // What it says then is followed.
    mend(&world, "nameserver 127.0.0.54\n")?;
    wait_until("the nameserver is another", || {
        refused(&mut shell, "tcp/127.0.0.53/53".into())
    })?;
    assert!(shell.attempt(&["tcp/127.0.0.54/53"])?[0].is_reached());
    let arrivals = services.arrivals();
    assert_eq!(
        arrivals.len(),
        NEW.len(),
        "the controls alone: {arrivals:?}"
    );
    Ok(())
}

#[test]
fn an_orphaned_fence_gets_the_hosts_addresses_too() -> Result<()> {
    let world = World::new()?;
    let fence = Fence::new("orphan")?.with(&["--user", "nobody"]);
    let mut shell = Shell::start(fence.command(&world.host, "sh"))?;
    let _services = Listeners::everywhere(&world.host, PORT)?;
    let _dns = Listeners::everywhere(&world.host, 53)?;
    // The control: the nameserver is excepted before.
    let nameserver = shell.attempt(&["tcp/127.0.0.53/53"])?;
    assert!(nameserver[0].is_reached(), "{nameserver:?}");
    shell.kill_supervisor()?;
    let why = spoil(&world, 1)?;
    let address = NEW[0];
    world.add_host_address(address, "lo")?;
    let attempt = format!("udp/{address}/{PORT}");
    // The control: nobody has followed it yet, and the packet layer fails with another error.
    assert!(!shell.attempt(&[&attempt])?[0].failed_with("ECONNREFUSED"));
    let mut command = world.host.command(qfence()?);
    command.args(["set", fence.name(), "--deny", "any:25"]);
    let ended = to_end(command)?;
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    assert!(ended.stderr.contains(why), "{ended:?}");
    assert!(shell.attempt(&[&attempt])?[0].failed_with("ECONNREFUSED"));
    let nameserver = shell.attempt(&["tcp/127.0.0.53/53"])?;
    assert!(nameserver[0].failed_with("ECONNREFUSED"), "{nameserver:?}");
    Ok(())
}

#[test]
fn nothing_is_started_with_one_that_cannot_be_read() -> Result<()> {
    let world = World::new()?;
    let exec = |options: &[&str]| {
        let mut command = world.host.command(qfence()?);
        command.args(["exec", "--name", &unique_name("unread"), "--user", "nobody"]);
        command.args(options).args(["--", "echo", "ran"]);
        to_end(command)
    };
    for way in 0..3 {
        let why = spoil(&world, way)?;
        let ended = exec(&[])?;
        assert_eq!((ended.code(), &*ended.stdout), (Some(125), ""), "{ended:?}");
        assert!(ended.stderr.contains(why), "{ended:?}");
        // Where no rule asks for it, it does not matter.
        let ended = exec(&["--dns", "deny"])?;
        assert_eq!(
            (ended.code(), &*ended.stdout),
            (Some(0), "ran\n"),
            "{ended:?}"
        );
    }
    mend(&world, "nameserver 127.0.0.53\n")?;
    let ended = exec(&[])?;
    assert_eq!(
        (ended.code(), &*ended.stdout),
        (Some(0), "ran\n"),
        "{ended:?}"
    );
    Ok(())
}

#[test]
fn a_nameserver_of_one_link_opens_its_port_on_no_other_link() -> Result<()> {
    const LINK: &str = "fe80::1";
    let world = World::new()?;
    // At first no other device has link-local addresses.
    for device in ["br0", "port0", "port1"] {
        world.host_ip(&format!("link set {device} addrgenmode none"))?;
        world.host_ip(&format!("-6 address flush dev {device} scope link"))?;
    }
    world
        .internet
        .ip(&format!("address add {LINK}/64 dev eth0 nodad"))?;
    let _dns = Listeners::everywhere(&world.internet, 53)?;
    world.write_resolv_conf(&format!("nameserver {LINK}%eth0\n"))?;
    let fence = Fence::new("zone")?.with(&["--user", "nobody", "--profile", "internet-only"]);
    let mut shell = Shell::start(fence.command(&world.host, "sh"))?;
    let [tcp, other] = [53, PORT].map(|port| format!("tcp/{LINK}%eth0/{port}"));
    wait_until("the nameserver is excepted", || {
        Ok(shell.attempt(&[&tcp])?[0].is_reached())
    })
    .with_context(|| shell.stderr())?;
    assert!(shell.attempt(&[&other])?[0].failed_with("ECONNREFUSED"));

    // The same address on this link would be another machine, or this host.
    world.host_ip("address add fe80::5/64 dev br0 nodad")?;
    wait_until("the nameserver is refused", || {
        Ok(shell.attempt(&[&tcp])?[0].failed_with("ECONNREFUSED"))
    })?;
    let warning = format!("warning: the fence refuses the nameserver {LINK}%eth0: ");
    let advice = format!("--allow '[{LINK}]:53'");
    wait_until("it is reported", || Ok(shell.stderr().contains(&warning)))?;
    assert!(shell.stderr().contains(&advice), "{}", shell.stderr());
    let mut command = world.host.command(qfence()?);
    command.args(["set", fence.name(), "--allow", &format!("[{LINK}]:53")]);
    let ended = to_end(command)?;
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    assert!(shell.attempt(&[&tcp])?[0].is_reached());
    wait_until("that is reported too", || {
        Ok(shell.stderr().contains("allows each nameserver again"))
    })?;
    drop(shell);

    // At a start it is reported once.
    let mut shell = Shell::start(fence.command(&world.host, "sh"))?;
    assert!(shell.attempt(&[&tcp])?[0].failed_with("ECONNREFUSED"));
    world.host_ip("address add 198.51.100.90/32 dev lo")?;
    let late = "udp/198.51.100.90/8080";
    wait_until("a change is followed", || {
        Ok(shell.attempt(&[late])?[0].failed_with("ECONNREFUSED"))
    })?;
    assert_eq!(shell.stderr().matches(&warning).count(), 1);
    drop(shell);

    // Where the policy allows it, nothing is said.
    let fence = Fence::new("zone-host")?.with(&["--user", "nobody"]);
    let mut shell = Shell::start(fence.command(&world.host, "sh"))?;
    assert!(shell.attempt(&[&tcp])?[0].is_reached());
    assert!(!shell.stderr().contains("nameserver"), "{}", shell.stderr());
    Ok(())
}

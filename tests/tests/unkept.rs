//! What the host's addresses are is published whatever becomes of the file in which a policy is kept, and who holds it up is
//! named.

use std::{
    fs::{self, File},
    net::{IpAddr, Ipv4Addr, TcpStream},
};

use anyhow::{Context as _, Result};
use nix::fcntl::{Flock, FlockArg};
use tests::{
    fence::Fence, listener::Listeners, mounts::mount_new, run::wait_until, shell::Shell,
    world::World,
};

const PORT: u16 = 8080;
const FILLER: &str = "/run/qfence/filler";

/// The host's next address.
fn address(number: u8) -> IpAddr {
    Ipv4Addr::new(198, 51, 100, number).into()
}

/// A host whose /run is its own and small, and a fence on it.
struct Scene {
    world: World,
    fence: Fence,
    shell: Shell,
    _services: Listeners,
}

impl Scene {
    fn new(label: &str) -> Result<Self> {
        let world = World::new()?;
        world
            .host
            .run(|| mount_new("tmpfs", "/run", Some("size=128k,mode=755")))?;
        let fence = Fence::new(label)?.with(&["--user", "nobody"]);
        let shell = Shell::start(fence.command(&world.host, "sh"))?;
        let _services = Listeners::everywhere(&world.host, PORT)?;
        Ok(Self {
            world,
            fence,
            shell,
            _services,
        })
    }

    fn policy(&self) -> String {
        format!("/run/qfence/{}.policy", self.fence.name())
    }

    /// Gives the host an address, which without the fence is reached; whether the fence comes to refuse it by its
    /// address, as calls are: the packet layer has another error.
    fn ensure_followed(&mut self, address: IpAddr) -> Result<()> {
        self.world.add_host_address(address, "lo")?;
        let outside = |address| TcpStream::connect((address, PORT)).is_ok();
        assert!(self.world.host.run(|| Ok(outside(address)))?, "control");
        let attempt = format!("udp/{address}/{PORT}");
        wait_until(&format!("{address} is refused"), || {
            Ok(self.shell.attempt(&[&attempt])?[0].failed_with("ECONNREFUSED"))
        })
        .with_context(|| self.shell.stderr())
    }

    /// Waits until something is said.
    fn await_said(&self, what: &str) -> Result<()> {
        wait_until(what, || Ok(self.shell.stderr().contains(what)))
            .with_context(|| self.shell.stderr())
    }

    /// Waits until the policy that is kept has an address in it.
    fn await_kept(&self, address: IpAddr) -> Result<()> {
        let IpAddr::V4(v4) = address else {
            return Ok(());
        };
        let wanted = v4.to_ipv6_mapped().to_string();
        wait_until("the policy is kept", || {
            let (host, path) = (&self.world.host, self.policy());
            let kept = host.run(|| Ok(fs::read_to_string(path)?));
            Ok(kept.is_ok_and(|kept| kept.contains(&wanted) || kept.contains(&v4.to_string())))
        })
        .with_context(|| self.shell.stderr())
    }
}

#[test]
fn addresses_are_followed_while_nothing_can_be_kept_and_kept_when_it_can() -> Result<()> {
    let mut scene = Scene::new("full")?;
    scene.world.host.run(|| {
        let filler = File::create(FILLER)?;
        let filled = std::io::copy(&mut std::io::repeat(b'x'), &mut &filler);
        assert!(filled.is_err(), "it is not full");
        Ok(())
    })?;
    scene.ensure_followed(address(70))?;
    scene.ensure_followed(address(71))?;
    scene.await_said("No space left on device")?;
    // Tried each second, and said once.
    std::thread::sleep(std::time::Duration::from_secs(3));
    let said = scene.shell.stderr();
    assert_eq!(
        said.matches(".policy: No space left on device").count(),
        1,
        "{said}"
    );
    scene.world.host.run(|| Ok(fs::remove_file(FILLER)?))?;
    scene.await_said("the policy file is up to date again")?;
    scene.await_kept(address(71))
}

#[test]
fn addresses_are_followed_while_what_is_kept_cannot_be_understood() -> Result<()> {
    let mut scene = Scene::new("spoilt")?;
    let (path, before) = (scene.policy(), scene.policy() + ".before");
    scene.world.host.run(|| {
        fs::copy(&path, &before)?;
        Ok(fs::write(&path, "{}")?)
    })?;
    scene.ensure_followed(address(72))?;
    scene.await_said("is no policy of this version of qfence")?;
    // It may be another version's: it is left.
    let found = scene.world.host.run(|| Ok(fs::read_to_string(&path)?))?;
    assert_eq!(found, "{}");
    scene.world.host.run(|| Ok(fs::rename(&before, &path)?))?;
    scene.await_said("the policy file is up to date again")?;
    scene.await_kept(address(72))
}

#[test]
fn addresses_are_followed_when_the_pins_are_gone() -> Result<()> {
    let mut scene = Scene::new("unpinned")?;
    fs::remove_dir_all(std::path::Path::new("/sys/fs/bpf/qfence").join(scene.fence.name()))?;
    scene.ensure_followed(address(73))?;
    scene.await_said("cannot lock")
}

#[test]
fn who_holds_up_the_following_is_named() -> Result<()> {
    let mut scene = Scene::new("held")?;
    let pins = File::open(std::path::Path::new("/sys/fs/bpf/qfence").join(scene.fence.name()))?;
    let lock = Flock::lock(pins, FlockArg::LockExclusive).map_err(|(_, errno)| errno)?;
    scene.world.add_host_address(address(74), "lo")?;
    // As one that was stopped in the middle of a change.
    scene.await_said(&format!("process {} (", std::process::id()))?;
    let said = scene.shell.stderr();
    assert_eq!(
        said.matches("which has been changing the policy").count(),
        1,
        "{said}"
    );
    drop(lock);
    scene.await_said("follows the host's addresses and nameservers again")?;
    scene.ensure_followed(address(75))
}

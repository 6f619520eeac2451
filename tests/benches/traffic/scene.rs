//! A private host and internet for each rival, and a shell there that makes traffic as nobody.

use std::{fs, path::PathBuf, thread, time::Duration};

use anyhow::{Context as _, Result, ensure};
use tests::{
    fence::{Fence, other_build, unique_name},
    namespace::NOBODY,
    probe::{self, Load},
    remains,
    shell::Shell,
    world::World,
};

use crate::{
    loads::{ACCEPT, DISCARD, Kind, OWN, SINK, SOURCE, Traffic},
    rival::Rival,
};

/// A host with a rival, and who makes traffic there.
pub(crate) struct Scene {
    rival: Rival,
    shell: Shell,
    fence: Option<Fence>,
    // In this order: the cgroup is removed when nobody is in it any more.
    _cgroup: Option<Cgroup>,
    _nameserver: Option<Shell>,
    _servers: [Shell; 2],
    _world: World,
}

impl Drop for Scene {
    fn drop(&mut self) {
        if has_own_listener(self.rival) {
            // The shell may have ended.
            let _ = self.shell.ask("kill $!");
        }
    }
}

/// The nameserver that fences with rules by name ask, and their options. All else is denied.
const NAMESERVER: &str = "127.0.0.1";
const BY_NAMES: [&str; 4] = ["--profile", "locked", "--allow", "www.example.org"];

/// A cgroup, removed when dropped.
struct Cgroup(PathBuf);

impl Scene {
    /// Sets up a host, an internet with servers, and the rival.
    pub(crate) fn new(rival: Rival) -> Result<Self> {
        let world = World::new()?;
        let servers = [serve(&world, true)?, serve(&world, false)?];
        let name = unique_name("rival");
        let cgroup = match rival {
            Rival::Nftables => Some(Cgroup::new(&name)?),
            _ => None,
        };
        rival.set_up(&world, &name)?;
        let nameserver = match rival {
            Rival::Names => Some(nameserver(&world)?),
            _ => None,
        };
        let fence = match rival {
            Rival::Fence => Some(fence()?),
            Rival::OfSelf => Some(fence()?.with(&["--allow", "self"])),
            Rival::Names => Some(fence()?.with(&BY_NAMES)),
            Rival::OtherBuild => {
                let program = other_build()?.context("there is no other build to compare with")?;
                Some(fence()?.by(program))
            }
            _ => None,
        };
        let command = match (&fence, &cgroup) {
            (Some(fence), _) => fence.command(&world.host, "sh"),
            (None, Some(Cgroup(path))) => {
                let script = r#"echo 0 >"$1/cgroup.procs" && exec setpriv --reuid "$2" --regid "$2" --clear-groups sh"#;
                let mut command = world.host.command("sh");
                command.args(["-c", script, "sh"]).arg(path);
                command.arg(NOBODY.uid.to_string());
                command
            }
            (None, None) => world.host.command_as(NOBODY, "sh"),
        };
        let mut shell = Shell::start(command)?;
        if has_own_listener(rival) {
            serve_own(&mut shell)?;
        }
        Ok(Self {
            rival,
            shell,
            fence,
            _cgroup: cgroup,
            _nameserver: nameserver,
            _servers: servers,
            _world: world,
        })
    }

    pub(crate) fn rival(&self) -> Rival {
        self.rival
    }

    /// The name of the fence, where there is one.
    pub(crate) fn fence(&self) -> Result<&str> {
        Ok(self.fence.as_ref().context("there is no fence")?.name())
    }

    /// Makes traffic for some milliseconds; how fast it was.
    pub(crate) fn sample(&mut self, traffic: &Traffic, ms: u32) -> Result<f64> {
        let program = probe::program()?;
        let script = format!(
            "{} --for-ms {ms} --load {}",
            program.display(),
            traffic.load(self.rival)
        );
        if self.rival == Rival::Names {
            // The addresses of the name are in force from then on.
            let look_up = format!("{} --load look-up/{NAMESERVER}/53", program.display());
            let found = self.shell.ask(&look_up)?;
            ensure!(found.len() == 1, "no name: {}", self.shell.stderr());
        }
        let said = self.shell.ask(&script)?;
        let loads: Vec<Load> = probe::read_lines(&said.join("\n"))?;
        let [load] = &loads[..] else {
            anyhow::bail!("{script}: {said:?}: {}", self.shell.stderr());
        };
        ensure!(load.count > 0, "nothing was done: {load:?}");
        Ok(traffic.kind.figure(load.count, load.ms))
    }
}

/// A nameserver on the host, which its resolv.conf names.
fn nameserver(world: &World) -> Result<Shell> {
    world.write_resolv_conf(&format!("nameserver {NAMESERVER}\n"))?;
    probe::nameserver(&world.host)
}

fn fence() -> Result<Fence> {
    Ok(Fence::new("traffic")?.with(&["--user", "nobody"]))
}

/// The services on the internet, or on the host itself.
fn serve(world: &World, on_internet: bool) -> Result<Shell> {
    let place = if on_internet {
        &world.internet
    } else {
        &world.host
    };
    let mut shell = Shell::start(place.command("sh"))?;
    shell.tell(&format!(
        "exec {} --serve accept-tcp/{ACCEPT} sink-tcp/{SINK} source-tcp/{SOURCE} source-udp/{SOURCE} full-udp/{DISCARD}",
        probe::program()?.display()
    ))?;
    let said = shell.next_line()?;
    ensure!(said == "serving", "the server says {said:?}");
    Ok(shell)
}

/// Whether connections to a listener of the measured process's own are measured there.
fn has_own_listener(rival: Rival) -> bool {
    Kind::ConnectOwn.is_for(rival)
}

/// Makes a shell start a listener of the measured process's own, in the background.
fn serve_own(shell: &mut Shell) -> Result<()> {
    let program = probe::program()?;
    shell.tell(&format!("{} --serve accept-tcp/{OWN} &", program.display()))?;
    let said = shell.next_line()?;
    ensure!(said == "serving", "the server says {said:?}");
    Ok(())
}

impl Cgroup {
    fn new(name: &str) -> Result<Self> {
        let path = remains::cgroup2_mount()?.join(name);
        fs::create_dir(&path).with_context(|| format!("make {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // The shell in it was killed just now.
        for _ in 0..100 {
            if fs::remove_dir(&self.0).is_ok() {
                break;
            }
            thread::sleep(Duration::from_millis(10));
        }
    }
}

//! A host with clients of DNS, and an internet with nameservers and a server of all names.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6},
    path::PathBuf,
};

use anyhow::{Context as _, Result, ensure};
use nix::{
    mount::{MsFlags, mount},
    net::if_::if_nametoindex,
};
use tests::{
    debian, listener::Listener, nameserver::Nameserver, reachable::reachable, run::to_end,
    workspace, world::World,
};

use super::{
    super::PORT,
    answers::{self, Family},
    table::Client,
};

/// The sources of the clients of libraries.
const SOURCES: [(&str, &str); 3] = [
    ("fetch.h", include_str!("fetch.h")),
    ("libc.c", include_str!("libc.c")),
    ("cares.c", include_str!("cares.c")),
];

/// How they are compiled.
const COMPILATIONS: [&str; 3] = [
    "gcc -o glibc libc.c",
    "musl-gcc -static -o musl libc.c",
    "gcc -o cares cares.c -lcares",
];

/// The addresses of the nameservers, as `table.rs` writes them.
const ON_HOST: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 53);
const OUTSIDE_V4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 53);
const OUTSIDE_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 0x53);
const OF_LINK: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x53);

/// A name and its addresses, which no other name has.
#[derive(Clone, Debug)]
pub(in super::super) struct Host {
    pub(in super::super) name: String,
    pub(in super::super) addresses: Vec<IpAddr>,
}

/// Where a nameserver listens besides those of the internet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum OnHost {
    /// At 127.0.0.53.
    Nameserver,
    /// Nowhere.
    Nothing,
}

pub(in super::super) struct Place {
    pub(in super::super) world: World,
    pub(in super::super) nameserver: Nameserver,
    servers: Vec<Listener>,
    /// The compiled clients.
    directory: tempfile::TempDir,
    docker: PathBuf,
    names: u16,
}

impl Place {
    pub(in super::super) fn new(on_host: OnHost) -> Result<Self> {
        let world = World::new()?;
        add_programs(&world)?;
        let internet = &world.internet;
        internet.ip_batch(&format!(
            "address add {OUTSIDE_V4}/32 dev lo\n\
             address add {OUTSIDE_V6}/128 dev lo\n\
             address add {OF_LINK}/64 dev eth0 nodad\n\
             route add local {}/16 dev lo\n\
             route add local {}/64 dev lo\n",
            answers::V4,
            answers::V6,
        ))?;
        internet.await_local(&[OUTSIDE_V4.into(), OUTSIDE_V6.into(), OF_LINK.into()])?;
        let link = internet.run(|| Ok(if_nametoindex("eth0")?))?;
        let mut places = vec![
            (internet, SocketAddr::from((OUTSIDE_V4, 53))),
            (internet, (OUTSIDE_V6, 53).into()),
            (internet, SocketAddrV6::new(OF_LINK, 53, 0, link).into()),
        ];
        if on_host == OnHost::Nameserver {
            places.push((&world.host, (ON_HOST, 53).into()));
        }
        let nameserver = Nameserver::start(&places, answers::answer)?;
        let servers = [
            IpAddr::from(Ipv4Addr::UNSPECIFIED),
            Ipv6Addr::UNSPECIFIED.into(),
        ]
        .map(|any| Listener::http(internet, SocketAddr::new(any, PORT)));
        Ok(Self {
            nameserver,
            servers: servers.into_iter().collect::<Result<_>>()?,
            directory: compile(&world)?,
            docker: reachable(&debian::engines()?.join("usr/bin/docker"))?,
            world,
            names: 0,
        })
    }

    /// A host that was not used before, in a zone. `kind` is the [kind](answers) of the answer to its name.
    pub(in super::super) fn next(&mut self, kind: &str, zone: &str, family: Family) -> Host {
        let first = self.names;
        self.names += answers::count_of(kind);
        let addresses = (first..self.names).map(|number| family.address(number));
        Host {
            addresses: addresses.collect(),
            name: format!("{kind}-{first}.{}.{zone}", family.label()),
        }
    }

    /// The addresses of a host from which pages were fetched.
    pub(in super::super) fn reached(&self, host: &Host) -> Vec<IpAddr> {
        let arrivals = self.servers.iter().flat_map(Listener::arrivals);
        let arrived: Vec<_> = arrivals.map(|arrival| arrival.local.ip()).collect();
        let mut reached = host.addresses.clone();
        reached.retain(|address| arrived.contains(address));
        reached
    }

    /// The path of a compiled client.
    pub(in super::super) fn program(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The line for the shell by which a client fetches a page from a host.
    pub(super) fn line(&self, client: &Client, host: &Host) -> String {
        let kind = host.addresses.first().map_or(
            "A",
            |address| {
                if address.is_ipv4() { "A" } else { "AAAA" }
            },
        );
        let directory = self.directory.path().display().to_string();
        client
            .line
            .replace("DOCKER", &self.docker.display().to_string())
            .replace("DIRECTORY", &directory)
            .replace("NAME", &host.name)
            .replace("TYPE", kind)
            .replace("PORT", &PORT.to_string())
    }
}

/// Shows the host the files of the packages.
fn add_programs(world: &World) -> Result<()> {
    let files = debian::resolvers()?.join("usr");
    let layers = format!("lowerdir={}:/usr", files.display());
    let (overlay, read_only) = (Some("overlay"), MsFlags::MS_RDONLY);
    world.host.run(|| {
        mount(overlay, "/usr", overlay, read_only, Some(&*layers))
            .context("mount an overlay on /usr")
    })
}

/// Compiles the clients of libraries, with the compilers and libraries of the host.
fn compile(world: &World) -> Result<tempfile::TempDir> {
    let directory = tempfile::Builder::new()
        .prefix("qfence-clients-")
        .tempdir()?;
    workspace::make_readable(directory.path())?;
    for (name, text) in SOURCES {
        fs::write(directory.path().join(name), text)?;
    }
    for words in COMPILATIONS {
        let mut command = world.host.command("sh");
        command.args(["-c", "cd \"$1\" && shift && exec \"$@\"", "sh"]);
        command.arg(directory.path()).args(words.split(' '));
        let ended = to_end(command)?;
        ensure!(ended.code() == Some(0), "{words}: {ended:?}");
    }
    Ok(directory)
}

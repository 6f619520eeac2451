//! Registries on a private internet, each behind aliases as at a content delivery network, and tools that use them.

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    fs,
    os::unix::fs::chown,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};
use serde_json::Value;
use tests::{
    dns::Dns,
    fence::Fence,
    mounts::bind,
    namespace::NOBODY,
    run::{Ended, to_end},
    workspace,
    world::{SERVER_V4, World},
};

use super::server::{Server, Site};

/// Where the toolchain is for the unprivileged user, who may be unable to enter the home directory it is in.
pub(super) const TOOLCHAIN: &str = "/mnt";

/// The names of two hosts from which a tool fetches.
pub(super) type Names = [&'static str; 2];

/// A tool that fetches from two hosts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tool {
    /// The names of the hosts.
    pub(super) names: Names,
    /// The port at both.
    pub(super) port: u16,
    /// Whether it is run as root, as usual, and not as an unprivileged user.
    pub(super) is_of_root: bool,
    /// Makes the files of both hosts. The first path is an empty directory for work.
    pub(super) publish: fn(Names, &Path, &Site) -> Result<()>,
    /// Prepares the empty directory in which the command runs, given the certificate of the authority; returns the
    /// command.
    pub(super) prepare: fn(Names, &Path, &Path) -> Result<Vec<String>>,
    /// The names of files that exist somewhere below that directory if the tool has fetched from both hosts.
    pub(super) fetched: fn(Names) -> Vec<String>,
}

impl Tool {
    /// A fence for the tool.
    pub(super) fn fence(&self, options: &[&str]) -> Result<Fence> {
        let user: &[&str] = if self.is_of_root {
            &[]
        } else {
            &["--user", "nobody"]
        };
        Ok(Fence::new("registries")?.with(user).with(options))
    }

    /// A fence in which nothing is allowed but names.
    pub(super) fn locked(&self, names: &[&str]) -> Result<Fence> {
        let rule = |name: &&str| ["--allow".to_owned(), format!("tcp:{name}:{}", self.port)];
        let rules: Vec<_> = names.iter().flat_map(rule).collect();
        let rules: Vec<_> = rules.iter().map(String::as_str).collect();
        Ok(self.fence(&["--profile", "locked"])?.with(&rules))
    }
}

/// How a run of a tool ended.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) ended: Ended,
    /// Whether all files were fetched.
    pub(super) is_complete: bool,
    /// The hosts that got requests.
    pub(super) hosts: BTreeSet<String>,
}

/// A host, and an internet with a nameserver and the hosts of tools.
#[derive(Debug)]
pub(super) struct Scene {
    pub(super) world: World,
    _dns: Dns,
    server: Server,
}

impl Scene {
    pub(super) fn new(tools: &[Tool]) -> Result<Self> {
        let names: BTreeSet<_> = tools.iter().flat_map(|tool| tool.names).collect();
        let names: Vec<_> = names.into_iter().collect();
        let world = World::new()?;
        // A query without an answer costs more time than a test has: a tool that ends has waited for none.
        world.write_resolv_conf(&format!(
            "nameserver {SERVER_V4}\noptions timeout:30 attempts:5\n"
        ))?;
        world.host.run(|| bind(&toolchain()?, TOOLCHAIN))?;
        let mut options = vec!["--local-ttl=20".to_owned()];
        for (name, number) in names.iter().zip(20..) {
            let (v4, v6) = addresses(number);
            world.internet.ip_batch(&format!(
                "address add {v4}/32 dev lo\naddress add {v6}/128 dev lo nodad\n"
            ))?;
            options.extend([
                format!("--local=/{name}/"),
                format!("--cname={name},{name}.cdn.test"),
                format!("--cname={name}.cdn.test,edge-{number}.cdn.test"),
                format!("--host-record=edge-{number}.cdn.test,{v4},{v6}"),
            ]);
        }
        let dns = Dns::start_with(&world.internet, SERVER_V4, &options)?;
        let site = Site::new()?;
        for tool in tools {
            let work = tempfile::tempdir()?;
            (tool.publish)(tool.names, work.path(), &site).context("make a registry")?;
        }
        let server = Server::start(&world.internet, site, &names)?;
        Ok(Self {
            world,
            _dns: dns,
            server,
        })
    }

    /// Runs a tool in a fence, or without one.
    pub(super) fn run(&self, tool: &Tool, fence: Option<&Fence>) -> Result<Run> {
        let dir = tempfile::Builder::new().prefix("qfence-fetch-").tempdir()?;
        workspace::make_readable(dir.path())?;
        if !tool.is_of_root {
            chown(dir.path(), Some(NOBODY.uid), Some(NOBODY.gid))?;
        }
        let words = (tool.prepare)(tool.names, dir.path(), &self.server.site.authority())?;
        let host = &self.world.host;
        let mut command: Command = match fence {
            Some(fence) => fence.command(host, "env"),
            None if tool.is_of_root => host.command("env"),
            None => host.command_as(NOBODY, "env"),
        };
        let path = dir.path().display();
        command
            .args(["-i", "-C", &path.to_string(), "LC_ALL=C"])
            .arg(format!("HOME={path}"))
            .arg(format!(
                "PATH={TOOLCHAIN}/bin:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
            ))
            .args(words);
        let before = self.server.requests()?.len();
        let ended = to_end(command)?;
        let requests = self.server.requests()?.into_iter().skip(before);
        let host_of = |line: String| line.split_once(' ').map(|(host, _)| host.to_owned());
        Ok(Run {
            ended,
            is_complete: has_all(dir.path(), &(tool.fetched)(tool.names))?,
            hosts: requests.filter_map(host_of).collect(),
        })
    }
}

/// Whether there are files of these names below a directory.
fn has_all(dir: &Path, names: &[String]) -> Result<bool> {
    let mut found = BTreeSet::new();
    let mut left = vec![dir.to_owned()];
    while let Some(dir) = left.pop() {
        for entry in fs::read_dir(&dir).with_context(|| format!("read {}", dir.display()))? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                left.push(entry.path());
            } else {
                found.insert(entry.file_name());
            }
        }
    }
    Ok(names.iter().all(|name| found.contains(OsStr::new(name))))
}

/// The names whose look-up was refused, by the record of a fence. That of a service, which apt makes first, counts as one
/// of the name.
pub(super) fn refused(lines: &[Value]) -> BTreeSet<String> {
    let is_refused = |line: &&Value| line["kind"] == "lookup" && line["verdict"] == "denied";
    let name = |line: &Value| {
        let name = line["name"].as_str()?;
        Some(name.trim_start_matches("_http._tcp.").to_owned())
    };
    lines.iter().filter(is_refused).filter_map(name).collect()
}

/// The addresses of a host.
fn addresses(number: u8) -> (String, String) {
    (
        format!("198.51.100.{number}"),
        format!("2001:db8:2::{number}"),
    )
}

/// The directory of the toolchain that built this test: above `bin/cargo`.
fn toolchain() -> Result<PathBuf> {
    let cargo = Path::new(env!("CARGO"));
    let above = cargo.ancestors().nth(2);
    Ok(above.context("cargo is in a directory")?.to_owned())
}

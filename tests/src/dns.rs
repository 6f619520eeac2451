//! A real resolver, dnsmasq, that resolves given names and logs every query.

use std::{
    fs,
    net::{IpAddr, SocketAddr, TcpStream},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use crate::{namespace::Namespace, process::Process};

/// A running dnsmasq; it ends when dropped.
#[derive(Debug)]
pub struct Dns {
    process: Process,
    dir: tempfile::TempDir,
}

impl Dns {
    /// Starts a resolver on port 53 of `address`, by UDP and TCP, and waits until it answers.
    pub fn start(
        namespace: &Namespace,
        address: IpAddr,
        records: &[(&str, IpAddr)],
    ) -> Result<Self> {
        let option = |(name, address): &(&str, IpAddr)| format!("--address=/{name}/{address}");
        let options: Vec<_> = records.iter().map(option).collect();
        Self::start_with(namespace, address, &options)
    }

    /// Starts a resolver likewise, with options of dnsmasq that say what it resolves.
    pub fn start_with(namespace: &Namespace, address: IpAddr, options: &[String]) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("qfence-dns-").tempdir()?;
        let mut command = namespace.command("dnsmasq");
        command
            .args("--keep-in-foreground --conf-file=/dev/null --pid-file".split(' '))
            .args("--no-resolv --no-hosts --bind-interfaces --log-queries".split(' '))
            // A change of user or group would clear the death signal.
            .args(["--user=root", "--group=root"])
            .arg(format!("--listen-address={address}"))
            .arg(format!(
                "--log-facility={}",
                dir.path().join("log").display()
            ))
            .args(options);
        let process = Process::spawn(command).context("start dnsmasq (package dnsmasq-base)")?;
        let mut dns = Self { process, dir };
        dns.wait_until_ready(namespace, SocketAddr::new(address, 53))?;
        Ok(dns)
    }

    /// The queries so far, such as `query[A] www.example from 127.0.0.1`.
    pub fn queries(&self) -> Result<Vec<String>> {
        let log = self.log()?;
        let queries = log
            .lines()
            .filter_map(|line| line.find("query[").map(|at| &line[at..]));
        Ok(queries.map(str::to_owned).collect())
    }

    fn log(&self) -> Result<String> {
        fs::read_to_string(self.dir.path().join("log")).context("read dnsmasq's log")
    }

    fn wait_until_ready(&mut self, namespace: &Namespace, address: SocketAddr) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let connected = namespace.run(|| {
                Ok(TcpStream::connect_timeout(
                    &address,
                    Duration::from_secs(1),
                )?)
            });
            if connected.is_ok() {
                return Ok(());
            }
            if self.process.wait(Duration::from_millis(10))?.is_some() {
                bail!("dnsmasq has ended: {}", self.log().unwrap_or_default());
            }
            if Instant::now() >= deadline {
                bail!(
                    "dnsmasq does not listen: {}",
                    self.log().unwrap_or_default()
                );
            }
            thread::sleep(Duration::from_millis(10));
        }
    }
}

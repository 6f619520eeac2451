//! The addresses of a workload's network namespaces, as a fact that can be followed.
//!
//! A socket for announcements in a namespace would keep it alive after the workload has ended, and so would an open file of
//! it. So the addresses are read periodically, by a thread that enters each namespace for a moment and then ends. What the
//! workload sends to an address of its own leaves through the loopback device, and the packet layer refuses that whatever the
//! address is. So a delay here has no consequence other than the place of the refusal.

use std::{collections::BTreeSet, fmt, fs::File, io, sync::Arc, thread, time::Duration};

use nix::sched::{CloneFlags, setns};
use thiserror::Error;
use tokio::{runtime, sync::oneshot, time::sleep_until};

use super::{
    addresses::{AddressError, routes::LocalRoutes},
    fact::Fact,
    nameservers::Nameservers,
};
use crate::{
    base::beat,
    policy::{Prefix, hostset::WorkloadAddresses, rule::without_v4},
};

/// The time between readings.
pub const PERIOD: Duration = Duration::from_secs(1);

/// The most addresses of all namespaces of a workload. It can add any number itself.
pub const ADDRESSES: usize = 4096;

/// Opens the network namespaces of a workload, other than that of this process.
pub type Namespaces = Arc<dyn Fn() -> io::Result<Vec<File>> + Send + Sync>;

/// What is followed of a workload's network.
#[derive(Clone)]
pub struct WorkloadNetwork {
    /// Its network namespaces.
    pub namespaces: Namespaces,
    /// Its nameservers, if they are not those of this host's resolv.conf. They are not followed.
    pub nameservers: Option<Nameservers>,
    /// Whether its services at its own addresses are allowed.
    pub pod_loopback: bool,
}

impl fmt::Debug for WorkloadNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkloadNetwork")
            .field("nameservers", &self.nameservers)
            .field("pod_loopback", &self.pod_loopback)
            .finish_non_exhaustive()
    }
}

/// Why the addresses of a workload cannot be read.
#[derive(Debug, Error)]
pub enum WorkloadError {
    /// Its namespaces cannot be found.
    #[error("cannot open the workload's network namespaces")]
    Find(#[source] io::Error),
    /// A namespace cannot be entered.
    #[error("cannot enter the workload's network namespace")]
    Enter(#[source] io::Error),
    /// Its routes cannot be read.
    #[error("cannot read the addresses in the workload's network namespace")]
    Read(#[from] AddressError),
    /// The thread has ended without a result.
    #[error("the thread that reads the workload's addresses has ended")]
    Ended,
}

/// The addresses, as a fact that can be followed.
pub struct FollowedWorkload {
    namespaces: Namespaces,
    /// Those of the last reading; `None` if it failed.
    seen: Option<WorkloadAddresses>,
}

impl FollowedWorkload {
    /// The addresses in these namespaces.
    #[must_use]
    pub fn new(namespaces: Namespaces) -> Self {
        Self {
            namespaces,
            seen: None,
        }
    }
}

impl Fact for FollowedWorkload {
    type Value = WorkloadAddresses;
    type Error = WorkloadError;

    async fn read(&mut self) -> Result<WorkloadAddresses, WorkloadError> {
        let found = read(&self.namespaces).await;
        self.seen = found.as_ref().ok().cloned();
        found
    }

    async fn changed(&mut self) -> Result<(), WorkloadError> {
        loop {
            sleep_until(beat::next(PERIOD)).await;
            if read(&self.namespaces).await.ok() != self.seen {
                return Ok(());
            }
        }
    }
}

/// Reads the addresses in these namespaces once.
///
/// # Errors
/// If one of them cannot be entered or read.
pub async fn read(namespaces: &Namespaces) -> Result<WorkloadAddresses, WorkloadError> {
    let namespaces = Arc::clone(namespaces);
    let (send, receive) = oneshot::channel();
    // A thread of its own, because a thread that has entered a namespace is of no use for anything else.
    let thread = thread::Builder::new().spawn(move || {
        // Nobody may wait for it any more.
        let _ = send.send(in_each(&namespaces));
    });
    thread.map_err(WorkloadError::Enter)?;
    receive.await.map_err(|_| WorkloadError::Ended)?
}

/// Enters one namespace after the other, and reads the addresses in it.
fn in_each(namespaces: &Namespaces) -> Result<WorkloadAddresses, WorkloadError> {
    let mut found = WorkloadAddresses::default();
    for namespace in namespaces().map_err(WorkloadError::Find)? {
        setns(&namespace, CloneFlags::CLONE_NEWNET)
            .map_err(|errno| WorkloadError::Enter(errno.into()))?;
        let runtime = runtime::Builder::new_current_thread().enable_io().build();
        let runtime = runtime.map_err(WorkloadError::Enter)?;
        let left = ADDRESSES.saturating_sub(found.host.len());
        let local = runtime.block_on(async {
            let routes = LocalRoutes::open().map_err(AddressError::Open)?;
            routes.dump_up_to(left).await
        })?;
        found.host.extend(both(local.all));
        found.many.extend(both(local.broadcast));
    }
    Ok(found)
}

/// A route for all of IPv6 does not cover IPv4.
fn both(routes: BTreeSet<Prefix>) -> impl Iterator<Item = Prefix> {
    routes.into_iter().flat_map(without_v4)
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};

    use super::*;
    use crate::policy::hostset::single;

    /// A process in a network namespace of its own.
    struct Apart(Child);

    impl Apart {
        fn start(script: &str) -> Self {
            let script = format!("ip link set lo up && {script} && echo && exec sleep 1000");
            let mut child = Command::new("unshare")
                .args(["--net", "sh", "-c", &script])
                .stdout(std::process::Stdio::piped())
                .spawn()
                .unwrap();
            let mut line = String::new();
            let stdout = child.stdout.take().unwrap();
            io::BufRead::read_line(&mut io::BufReader::new(stdout), &mut line).unwrap();
            assert_eq!(line, "\n");
            Self(child)
        }

        fn path(&self) -> String {
            format!("/proc/{}/ns/net", self.0.id())
        }

        fn ip(&self, words: &str) {
            let status = Command::new("nsenter")
                .args(["--net", "--target", &self.0.id().to_string(), "ip"])
                .args(words.split(' '))
                .status();
            assert!(status.unwrap().success(), "{words}");
        }
    }

    impl Drop for Apart {
        fn drop(&mut self) {
            self.0.kill().unwrap();
            self.0.wait().unwrap();
        }
    }

    fn of(paths: Vec<String>) -> Namespaces {
        Arc::new(move || paths.iter().map(File::open).collect())
    }

    fn contains(found: &WorkloadAddresses, address: &str) -> bool {
        found.host.contains(&single(address.parse().unwrap()))
    }

    #[tokio::test]
    async fn addresses_of_all_namespaces_are_found_and_followed() {
        let add = |last: u8| format!("ip address add 198.51.100.{last}/24 brd + dev lo");
        let (one, two) = (Apart::start(&add(1)), Apart::start(&add(2)));
        let mut fact = FollowedWorkload::new(of(vec![one.path(), two.path()]));
        let found = fact.read().await.unwrap();
        assert!(contains(&found, "198.51.100.1") && contains(&found, "198.51.100.2"));
        assert!(!contains(&found, "198.51.100.3"));
        let broadcast = single("198.51.100.255".parse().unwrap());
        assert!(found.many.contains(&broadcast), "{found:?}");
        one.ip("address add 198.51.100.3/24 dev lo");
        fact.changed().await.unwrap();
        let found = fact.read().await.unwrap();
        assert!(contains(&found, "198.51.100.3"));
    }

    #[tokio::test]
    async fn of_too_many_addresses_some_are_read() {
        let many = "for i in $(seq 0 31); do for j in $(seq 1 250); do echo address add 10.1.$i.$j/32 dev lo; done; done \
                    | ip -batch -";
        let apart = Apart::start(many);
        let found = read(&of(vec![apart.path()])).await.unwrap();
        assert!(
            !found.host.is_empty() && found.host.len() <= ADDRESSES,
            "{}",
            found.host.len()
        );
    }

    #[tokio::test]
    async fn a_namespace_that_is_none_is_an_error() {
        let found = read(&of(vec!["/dev/null".to_owned()])).await;
        assert!(matches!(found, Err(WorkloadError::Enter(_))), "{found:?}");
        let found = read(&of(vec!["/nowhere".to_owned()])).await;
        assert!(matches!(found, Err(WorkloadError::Find(_))), "{found:?}");
        assert_eq!(
            read(&of(Vec::new())).await.unwrap(),
            WorkloadAddresses::default()
        );
    }
}

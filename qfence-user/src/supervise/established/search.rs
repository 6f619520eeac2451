//! A search for connections, in several rounds.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    fs::File,
    mem,
    os::fd::AsRawFd as _,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail};
use qfence_common::Protocol;

use super::{
    Connection, Ended, errno_is_missing,
    helper::Helper,
    message::{Answer, Request, Seen, Which},
    namespaces, refused,
};
use crate::fence::cgroup::Cgroup;

/// How long the kernel may take to list connections, or to end any of them. After that, the remaining ones are
/// reported.
const PATIENCE: Duration = Duration::from_secs(10);

/// The maximum duration of a search.
const LIMIT: Duration = Duration::from_secs(60);

/// Identifies a socket: its namespace, and its cookie there.
pub(super) type Id = (u64, [u8; 8]);

/// The connections that are searched for, and the means.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scope {
    /// Which connections are looked at.
    pub(super) which: Which,
    /// The most threads of the helper.
    pub(super) threads: usize,
}

/// A connection that may have to be ended.
#[derive(Debug)]
pub struct Candidate<'a> {
    /// The connection.
    pub connection: Connection,
    /// Its network namespace.
    pub namespace: &'a File,
    /// The cookie of its socket, in that namespace.
    pub cookie: [u8; 8],
    /// The index of the network device to which its socket is bound; 0 if it is bound to none.
    pub device: u32,
}

/// The result of one round.
#[derive(Default)]
pub(super) struct Look {
    /// Connections that did not exist any more when they were to be ended.
    pub(super) missed: HashMap<Id, Connection>,
    /// The number of namespaces that could not be opened, because their threads have left them.
    pub(super) unopened: usize,
}

/// A search.
pub(super) struct Search<'a, D> {
    cgroup: &'a Cgroup,
    denied: D,
    helper: &'a mut Helper,
    scope: Scope,
    begun: Instant,
    /// How long listing connections took until now.
    pub(super) listing: Duration,
    /// The connections that are being ended, by number.
    pending: HashMap<u64, (Id, Connection)>,
    /// The sockets of the connections that were ended or cannot be ended.
    pub(super) settled: HashSet<Id>,
    pub(super) ended: Ended,
    pub(super) errors: Vec<anyhow::Error>,
}

impl<'a, D: FnMut(&Candidate<'_>) -> bool> Search<'a, D> {
    pub(super) fn new(cgroup: &'a Cgroup, helper: &'a mut Helper, scope: Scope, denied: D) -> Self {
        Self {
            cgroup,
            denied,
            helper,
            scope,
            begun: Instant::now(),
            listing: Duration::ZERO,
            pending: HashMap::new(),
            settled: HashSet::new(),
            ended: Ended::default(),
            errors: Vec::new(),
        }
    }

    /// Runs one round.
    ///
    /// # Errors
    /// If the cgroups cannot be listed, or the kernel does not answer in time.
    pub(super) fn look(&mut self) -> Result<Look> {
        let cgroups = self.cgroup.ids().with_context(|| {
            let directory = self.cgroup.directory().display();
            format!("cannot list the cgroups of {directory}")
        })?;
        let mut look = Look::default();
        let namespaces = namespaces::of(self.cgroup, &mut self.errors);
        let mut left = namespaces.len();
        for namespace in namespaces {
            if self.begun.elapsed() >= LIMIT {
                let limit = LIMIT.as_secs();
                self.errors.push(anyhow!(
                    "{left} network namespaces of the fence were not searched within {limit} seconds"
                ));
                break;
            }
            left -= 1;
            match namespace.open() {
                Ok(Some(file)) => self.look_at(namespace.inode, &file, &cgroups, &mut look)?,
                Ok(None) => look.unopened += 1,
                Err(error) => self.errors.push(error),
            }
        }
        self.finish(&mut look)?;
        Ok(look)
    }

    /// Searches a namespace, and requests the end of its denied connections.
    fn look_at(
        &mut self,
        inode: u64,
        file: &File,
        cgroups: &BTreeSet<u64>,
        look: &mut Look,
    ) -> Result<()> {
        let begun = Instant::now();
        // The helper opens the namespace by this process's descriptor.
        self.helper.ask(&Request::Look {
            namespace: file.as_raw_fd(),
            cgroups: cgroups.clone(),
            which: self.scope.which,
        })?;
        let all = loop {
            match self.helper.answer(PATIENCE) {
                Ok(Some(Answer::Found(all))) => break all,
                Ok(Some(answer)) => self.take(&answer, look),
                Ok(None) => bail!(
                    "the kernel has not listed the connections of the fence within {} seconds: before \
                     Linux 6.9 it lists none while it waits for the socket of another connection",
                    PATIENCE.as_secs()
                ),
                Err(error) => {
                    self.errors.push(error);
                    return Ok(());
                }
            }
        };
        self.listing += begun.elapsed();
        let mut numbers = Vec::new();
        for Seen {
            number,
            cookie,
            protocol,
            local,
            remote,
            by_self,
            device,
        } in all
        {
            let connection = Connection {
                protocol: Protocol(protocol),
                local,
                remote,
                by_self,
            };
            let id = (inode, cookie);
            let candidate = Candidate {
                connection,
                namespace: file,
                cookie,
                device,
            };
            if !self.settled.contains(&id) && (self.denied)(&candidate) {
                self.pending.insert(number, (id, connection));
                numbers.push(number);
            }
        }
        if numbers.is_empty() {
            return Ok(());
        }
        self.helper.ask(&Request::End {
            numbers,
            threads: self.scope.threads,
        })
    }

    /// Waits until all pending connections have ended, as long as there is progress.
    fn finish(&mut self, look: &mut Look) -> Result<()> {
        while !self.pending.is_empty() {
            let left = LIMIT.saturating_sub(self.begun.elapsed());
            match self.helper.answer(PATIENCE.min(left))? {
                Some(answer) => self.take(&answer, look),
                None => self.give_up(),
            }
        }
        Ok(())
    }

    /// Abandons the pending connections.
    pub(super) fn give_up(&mut self) {
        for (id, connection) in mem::take(&mut self.pending).into_values() {
            self.settled.insert(id);
            self.ended.standing.push(connection);
        }
    }

    /// Handles an answer.
    fn take(&mut self, answer: &Answer, look: &mut Look) {
        let Answer::Ended { number, errno } = answer else {
            return;
        };
        // An abandoned connection may still end.
        let Some((id, connection)) = self.pending.remove(number) else {
            return;
        };
        match *errno {
            None => {
                self.settled.insert(id);
                self.ended.connections.push(connection);
            }
            // It has ended by itself, or the kernel found another socket with the same addresses.
            Some(errno) if errno_is_missing(errno) => {
                look.missed.insert(id, connection);
            }
            Some(errno) => {
                self.settled.insert(id);
                let error = refused(errno).context(format!("cannot end {connection}"));
                self.errors.push(error);
            }
        }
    }
}

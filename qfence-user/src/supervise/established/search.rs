//! One search for connections, in several rounds.

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
    message::{Answer, Request, Seen},
    namespaces, refused,
};
use crate::fence::cgroup::Cgroup;

/// How long the kernel gets to list connections, or to end any of them: then what it has not ended stands.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long all may take.
const LIMIT: Duration = Duration::from_secs(60);

/// A socket: its namespace, and the cookie it has there.
pub(super) type Id = (u64, [u8; 8]);

/// What one look at everything came to.
#[derive(Default)]
pub(super) struct Look {
    /// What was there, and was not found when it was to be ended.
    pub(super) missed: HashMap<Id, Connection>,
    /// How many namespaces could not be looked at, as the threads that were in them have moved on.
    pub(super) unopened: usize,
}

/// One search.
pub(super) struct Search<'a, D> {
    cgroup: &'a Cgroup,
    denied: D,
    helper: Helper,
    begun: Instant,
    /// What is being ended.
    pending: HashMap<u64, (Id, Connection)>,
    /// What was ended, or cannot be.
    pub(super) settled: HashSet<Id>,
    pub(super) ended: Ended,
    pub(super) errors: Vec<anyhow::Error>,
}

impl<'a, D: Fn(&Connection) -> bool> Search<'a, D> {
    pub(super) fn new(cgroup: &'a Cgroup, helper: Helper, denied: D) -> Self {
        Self {
            cgroup,
            denied,
            helper,
            begun: Instant::now(),
            pending: HashMap::new(),
            settled: HashSet::new(),
            ended: Ended::default(),
            errors: Vec::new(),
        }
    }

    /// Looks everywhere once.
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
                    "{left} network namespaces of the fence were not looked at within {limit} seconds"
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

    /// Looks at a namespace, and has what is denied ended there.
    fn look_at(
        &mut self,
        inode: u64,
        file: &File,
        cgroups: &BTreeSet<u64>,
        look: &mut Look,
    ) -> Result<()> {
        // The helper opens it anew, by this descriptor.
        self.helper.ask(&Request::Look {
            namespace: file.as_raw_fd(),
            cgroups: cgroups.clone(),
        })?;
        let all = loop {
            match self.helper.answer(PATIENCE) {
                Ok(Some(Answer::Found(all))) => break all,
                Ok(Some(answer)) => self.take(&answer, look),
                Ok(None) => bail!(
                    "the kernel has not listed the connections of the fence within {} seconds: before \
                     Linux 6.9 it lists none as long as it waits for the socket of another",
                    PATIENCE.as_secs()
                ),
                Err(error) => {
                    self.errors.push(error);
                    return Ok(());
                }
            }
        };
        let mut numbers = Vec::new();
        for Seen {
            number,
            cookie,
            protocol,
            local,
            remote,
        } in all
        {
            let connection = Connection {
                protocol: Protocol(protocol),
                local,
                remote,
            };
            let id = (inode, cookie);
            if (self.denied)(&connection) && !self.settled.contains(&id) {
                self.pending.insert(number, (id, connection));
                numbers.push(number);
            }
        }
        if numbers.is_empty() {
            return Ok(());
        }
        self.helper.ask(&Request::End(numbers))
    }

    /// Waits until everything has ended that is to, as long as anything does.
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

    /// Leaves to itself what is being ended.
    pub(super) fn give_up(&mut self) {
        for (id, connection) in mem::take(&mut self.pending).into_values() {
            self.settled.insert(id);
            self.ended.standing.push(connection);
        }
    }

    /// Takes note of what came of ending a connection.
    fn take(&mut self, answer: &Answer, look: &mut Look) {
        let Answer::Ended { number, errno } = answer else {
            return;
        };
        // What was given up may end after all.
        let Some((id, connection)) = self.pending.remove(number) else {
            return;
        };
        match *errno {
            None => {
                self.settled.insert(id);
                self.ended.connections.push(connection);
            }
            // It ended by itself, or the kernel took another for it, of the same two ends.
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

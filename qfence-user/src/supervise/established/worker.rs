//! The helper process. It makes all calls in which the kernel may wait for sockets of a fence, so that the process that
//! uses it does not block.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{self, BufRead as _, BufReader, Write as _},
    os::{fd::AsFd as _, unix::net::UnixStream},
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Context, Result};
use netlink_packet_sock_diag::inet::SocketId;
use nix::{
    sched::{CloneFlags, setns},
    unistd::getppid,
};
use qfence_common::Protocol;

use super::{
    diag::{self, Diag, KINDS},
    message::{Answer, Request, Seen, Which},
    origin::{self, Origin},
    pool,
};

/// Answers requests until its socket is closed. Standard input is the socket for requests and answers. Standard output
/// is the map of owners, and nothing is written to it.
///
/// # Errors
/// If standard input is not such a socket.
pub fn serve() -> Result<()> {
    let stream = UnixStream::from(
        io::stdin()
            .as_fd()
            .try_clone_to_owned()
            .context("cannot duplicate standard input")?,
    );
    let requests = BufReader::new(stream.try_clone().context("cannot duplicate a socket")?);
    let answers = Arc::new(Mutex::new(stream));
    let tell = move |answer: Answer| {
        let Ok(mut line) = serde_json::to_vec(&answer) else {
            return;
        };
        line.push(b'\n');
        let mut stream = answers.lock().unwrap_or_else(PoisonError::into_inner);
        // The other end may be closed.
        let _ = stream.write_all(&line);
    };
    let mut worker = Worker::default();
    for line in requests.lines() {
        let request = serde_json::from_str(&line.context("cannot read standard input")?)
            .context("standard input has no valid request of `qfence-user set`")?;
        match worker.answer(request, &tell) {
            Ok(Some(answer)) => tell(answer),
            Ok(None) => {}
            Err(error) => tell(Answer::Failed(format!("{error:#}"))),
        }
    }
    Ok(())
}

#[derive(Default)]
struct Worker {
    /// The connections found in the latest namespace.
    found: BTreeMap<u64, (Protocol, SocketId)>,
    /// The number of connections found in all namespaces.
    count: u64,
}

impl Worker {
    fn answer(
        &mut self,
        request: Request,
        tell: &(impl Fn(Answer) + Clone + Send + 'static),
    ) -> Result<Option<Answer>> {
        match request {
            Request::Check => check().map(Some),
            Request::Look {
                namespace,
                cgroups,
                which,
            } => {
                self.found.clear();
                let found = self.look(namespace, &cgroups, which);
                found.map(Answer::Found).map(Some)
            }
            Request::End { numbers, threads } => {
                let jobs = numbers.into_iter().filter_map(|number| {
                    let (protocol, id) = self.found.remove(&number)?;
                    let job = pool::Job {
                        number,
                        protocol,
                        id,
                    };
                    Some(job)
                });
                pool::end_all(jobs.collect(), threads, tell.clone())
                    .context("cannot start a thread")?;
                Ok(None)
            }
        }
    }

    /// Lists the connections that the fence with these cgroups has opened in a namespace, or some of them. This thread stays
    /// in that namespace.
    fn look(&mut self, namespace: i32, cgroups: &BTreeSet<u64>, which: Which) -> Result<Vec<Seen>> {
        let file = File::open(format!("/proc/{}/fd/{namespace}", getppid()))
            .context("cannot open a network namespace of the fence")?;
        setns(file, CloneFlags::CLONE_NEWNET)
            .context("cannot enter a network namespace of the fence")?;
        let diag = Diag::open()?;
        let mut all = Vec::new();
        for (protocol, family) in KINDS {
            let Some(states) = diag::states(protocol, which) else {
                continue;
            };
            for found in diag.dump(protocol, family, states, io::stdout().as_fd())? {
                let origin = match which {
                    Which::Unowned if origin::is_unowned(&found, cgroups) => Origin::Opened,
                    Which::Unowned => Origin::NotOpened,
                    Which::All | Which::Opening => origin::of(&found, cgroups),
                };
                if origin == Origin::NotOpened {
                    continue;
                }
                let number = self.count;
                self.count += 1;
                self.found.insert(number, (protocol, found.id().clone()));
                all.push(Seen {
                    number,
                    cookie: found.cookie(),
                    protocol: protocol.0,
                    local: found.connection.local,
                    remote: found.connection.remote,
                    by_self: origin == Origin::BySelf,
                    device: found.id().interface_id,
                });
            }
        }
        Ok(all)
    }
}

/// Whether this kernel can end connections (`inet_diag_cmd_exact` in net/ipv4/inet_diag.c).
fn check() -> Result<Answer> {
    // No connection has these addresses. A kernel that can end connections reports ENOENT.
    let ended = Diag::open()?.destroy(Protocol::TCP, &SocketId::new_v4());
    Ok(Answer::Checked(
        ended.err().and_then(|error| error.raw_os_error()),
    ))
}

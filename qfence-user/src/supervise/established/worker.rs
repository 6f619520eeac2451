//! The helper process: it makes all calls in which the kernel may wait for the sockets of a fence, so that whoever
//! asks it need not.

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
    diag::{Diag, KINDS},
    message::{Answer, Request, Seen},
    origin, pool,
};

/// Answers until nobody asks any more. Standard input is a socket, by which the questions come and the answers go,
/// and standard output the storage of owners, which is not written to.
///
/// # Errors
/// If standard input is nothing of the kind.
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
        // Nobody may listen any more.
        let _ = stream.write_all(&line);
    };
    let mut worker = Worker::default();
    for line in requests.lines() {
        let request = serde_json::from_str(&line.context("cannot read standard input")?)
            .context("standard input is not that of a helper of `qfence-user set`")?;
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
    /// What was found in the namespace that was looked at last.
    found: BTreeMap<u64, (Protocol, SocketId)>,
    /// How many connections were found at all.
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
            Request::Look { namespace, cgroups } => {
                self.found.clear();
                self.look(namespace, &cgroups).map(Answer::Found).map(Some)
            }
            Request::End(numbers) => {
                let jobs = numbers.into_iter().filter_map(|number| {
                    let (protocol, id) = self.found.remove(&number)?;
                    let job = pool::Job {
                        number,
                        protocol,
                        id,
                    };
                    Some(job)
                });
                pool::end_all(jobs.collect(), tell.clone()).context("cannot start a thread")?;
                Ok(None)
            }
        }
    }

    /// Lists what the fence of these cgroups has opened in a namespace. This thread stays in it.
    fn look(&mut self, namespace: i32, cgroups: &BTreeSet<u64>) -> Result<Vec<Seen>> {
        let file = File::open(format!("/proc/{}/fd/{namespace}", getppid()))
            .context("cannot open a network namespace of the fence")?;
        setns(file, CloneFlags::CLONE_NEWNET)
            .context("cannot enter a network namespace of the fence")?;
        let diag = Diag::open()?;
        let mut all = Vec::new();
        for (protocol, family) in KINDS {
            for found in diag.dump(protocol, family, io::stdout().as_fd())? {
                if !origin::is_opened(&found, cgroups) {
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
                });
            }
        }
        Ok(all)
    }
}

/// Whether this kernel can end connections (`inet_diag_cmd_exact` in net/ipv4/inet_diag.c).
fn check() -> Result<Answer> {
    // There is no connection from nowhere to nowhere; a kernel that can end one says so.
    let ended = Diag::open()?.destroy(Protocol::TCP, &SocketId::new_v4());
    Ok(Answer::Checked(
        ended.err().and_then(|error| error.raw_os_error()),
    ))
}

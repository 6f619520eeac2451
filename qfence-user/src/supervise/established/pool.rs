//! Ends many connections in parallel, in threads. If threads are blocked, more are started.

use std::{
    collections::VecDeque,
    io,
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use netlink_packet_sock_diag::inet::SocketId;
use nix::errno::Errno;
use qfence_common::Protocol;

use super::{diag::Diag, message::Answer};

/// After this time without an ended connection, the number of threads is doubled.
const PATIENCE: Duration = Duration::from_millis(50);

/// The stack size of a thread, in bytes.
const STACK: usize = 128 << 10;

/// The number of threads.
static THREADS: AtomicUsize = AtomicUsize::new(0);

/// A connection to be ended.
pub(super) struct Job {
    /// Its number in requests and answers.
    pub(super) number: u64,
    /// Its protocol.
    pub(super) protocol: Protocol,
    /// The kernel's identification of its socket.
    pub(super) id: SocketId,
}

/// The remaining jobs, and the progress.
#[derive(Default)]
struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    done: usize,
}

impl Queue {
    fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn next(&self) -> Option<Job> {
        let job = self.with(|state| state.jobs.pop_front());
        if job.is_none() {
            self.changed.notify_all();
        }
        job
    }

    /// Waits as long as jobs are completed. Returns whether there are remaining ones.
    fn wait(&self) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if state.jobs.is_empty() {
                return false;
            }
            let done = state.done;
            let waited = self.changed.wait_timeout(state, PATIENCE);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
            if !state.jobs.is_empty() && state.done == done {
                return true;
            }
        }
    }
}

/// Ends connections in the network namespace of this thread, and reports the result of each. Returns immediately. `most` is
/// the maximum number of threads of this process: a connection blocks one as long as a process of the fence keeps its
/// socket locked.
///
/// # Errors
/// If no thread can be started.
pub(super) fn end_all(
    jobs: Vec<Job>,
    most: usize,
    tell: impl Fn(Answer) + Clone + Send + 'static,
) -> io::Result<()> {
    let queue = Arc::new(Queue::default());
    queue.with(|state| state.jobs = jobs.into());
    start(move || {
        let mut threads = 0;
        loop {
            // A new thread is in the network namespace of the thread that starts it.
            for _ in 0..threads.max(1) {
                if let Err(error) = add_thread(&queue, most, tell.clone())
                    && threads == 0
                {
                    let errno = error.raw_os_error().or(Some(Errno::EIO as i32));
                    let jobs = queue.with(|state| std::mem::take(&mut state.jobs));
                    for Job { number, .. } in jobs {
                        tell(Answer::Ended { number, errno });
                    }
                    return;
                }
                threads += 1;
            }
            if !queue.wait() {
                return;
            }
        }
    })
}

fn add_thread(
    queue: &Arc<Queue>,
    most: usize,
    tell: impl Fn(Answer) + Send + 'static,
) -> io::Result<()> {
    if THREADS.load(Ordering::Relaxed) >= most {
        return Err(Errno::EAGAIN.into());
    }
    let diag = Diag::open().map_err(io::Error::other)?;
    let queue = Arc::clone(queue);
    THREADS.fetch_add(1, Ordering::Relaxed);
    let started = start(move || {
        while let Some(job) = queue.next() {
            let ended = diag.destroy(job.protocol, &job.id);
            let errno = ended
                .err()
                .map(|error| error.raw_os_error().unwrap_or(Errno::EIO as i32));
            let number = job.number;
            tell(Answer::Ended { number, errno });
            queue.with(|state| state.done += 1);
        }
        THREADS.fetch_sub(1, Ordering::Relaxed);
    });
    if started.is_err() {
        THREADS.fetch_sub(1, Ordering::Relaxed);
    }
    started
}

fn start(run: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let thread = thread::Builder::new().stack_size(STACK);
    thread.spawn(run).map(drop)
}

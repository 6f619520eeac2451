//! Keeps the masks in place while the command runs.
//!
//! A manager that restarts removes its socket and makes a new one. The kernel then drops the mask on the old one
//! (`detach_mounts` in fs/namespace.c). Others start only now.

use std::{
    collections::BTreeSet,
    sync::mpsc::{RecvTimeoutError, Sender, channel},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};
use nix::sched::{CloneFlags, setns, unshare};

use super::{Managers, Namespace, masks::Covers};
use crate::base::message_queue::MessageQueue;

/// The interval of the checks.
const INTERVAL: Duration = Duration::from_secs(1);

/// A thread in the command's mount namespace that masks new sockets of managers. It ends when this value is dropped.
#[derive(Debug)]
pub struct Keeper {
    /// Dropping it ends the thread. It is not waited for: a file system in user space can block it.
    _stop: Sender<()>,
}

impl Keeper {
    /// Starts the thread.
    ///
    /// # Errors
    /// If the thread cannot be made.
    pub fn start(managers: Managers, namespace: Namespace, messages: MessageQueue) -> Result<Self> {
        let (stop, stopped) = channel();
        let run = move || {
            if let Err(error) = join(&namespace) {
                messages.notify(format_args!(
                    "error: {error:#}: sockets that managers make from now on are not masked"
                ));
                return;
            }
            let mut covers = namespace.covers;
            let mut told = BTreeSet::new();
            while stopped.recv_timeout(INTERVAL) == Err(RecvTimeoutError::Timeout) {
                managers.mask_again(&mut covers, &mut told, &messages);
            }
        };
        thread::Builder::new()
            .name("qfence-masks".into())
            .spawn(run)
            .context("cannot make a thread")?;
        Ok(Self { _stop: stop })
    }
}

/// Moves this thread into the namespace.
fn join(namespace: &Namespace) -> Result<()> {
    // setns(2) requires a root directory that no other thread shares.
    unshare(CloneFlags::CLONE_FS).context("cannot have an own root directory")?;
    setns(&namespace.file, CloneFlags::CLONE_NEWNS).context("cannot join the mount namespace")
}

impl Managers {
    /// Masks sockets that were made since the last call, and reports that.
    fn mask_again(
        &self,
        covers: &mut Covers,
        told: &mut BTreeSet<String>,
        messages: &MessageQueue,
    ) {
        for (index, endpoint) in self.endpoints.iter().enumerate() {
            match self.mask(index, covers) {
                Ok(false) => {}
                Ok(true) => {
                    let made = format!(
                        "warning: {} made {} while the command was running: it is masked now, and the command could reach \
                         it for a second, and processes in mount namespaces of their own longer; repetitions are not \
                         reported",
                        endpoint.manager,
                        endpoint.path.display()
                    );
                    if told.insert(made.clone()) {
                        messages.notify(made);
                    }
                }
                Err(error) => {
                    let error = format!("error: {error:#}: the command may reach it; retrying");
                    if told.insert(error.clone()) {
                        messages.notify(error);
                    }
                }
            }
        }
    }
}

//! Containers that run already when the plugin connects, and that should have a fence. They are fenced as `attach --detach`
//! does it, by a process of its own each, so that the plugin answers meanwhile.

use std::{
    fmt::Display,
    process::{Command, Stdio},
    sync::mpsc::{Receiver, SendError, Sender, channel},
    thread::Builder,
};

use anyhow::{Context as _, Result, ensure};

use super::voice::Voice;
use crate::{
    base::paths::Paths,
    fence::registry::Fences,
    workload::{
        self, Target,
        nri::{choice::Choice, found::Late},
        oci::attach::words,
    },
};

/// The thread that fences containers, for all connections of this process.
#[derive(Debug)]
pub(super) struct Worker {
    options: Vec<String>,
    voice: Voice,
    paths: Paths,
    queue: Option<Sender<Vec<Late>>>,
}

impl Worker {
    /// It is started when there is something to do.
    pub(super) fn new(choice: &Choice, voice: Voice, paths: &Paths) -> Self {
        Self {
            options: choice.options.clone(),
            voice,
            paths: paths.clone(),
            queue: None,
        }
    }

    /// Has the containers fenced that are to be fenced now, and returns without waiting. The messages are those of what
    /// stays unfenced because the thread cannot be started, by `builder`.
    pub(super) fn fence(&mut self, builder: Builder, all: Vec<Late>) -> Vec<String> {
        let all = match &self.queue {
            None => all,
            Some(queue) => match queue.send(all) {
                Ok(()) => return Vec::new(),
                // The thread has ended.
                Err(SendError(all)) => all,
            },
        };
        let (queue, received) = channel();
        let (options, voice, paths) = (self.options.clone(), self.voice, self.paths.clone());
        let work = move || work(&received, &options, voice, &paths);
        match builder.name("qfence-late".into()).spawn(work) {
            Ok(_) => {
                // It was started just now, and waits for them.
                let _ = queue.send(all);
                self.queue = Some(queue);
                Vec::new()
            }
            Err(error) => {
                self.queue = None;
                let error = format!("cannot start a thread: {error}");
                all.iter().map(|late| unfenced(late, &error)).collect()
            }
        }
    }
}

/// Fences what is received, until the process ends. Of several lists the last one has all that runs.
fn work(received: &Receiver<Vec<Late>>, options: &[String], voice: Voice, paths: &Paths) {
    for all in received {
        let all = received.try_iter().last().unwrap_or(all);
        fence(&all, options, voice, paths);
    }
}

/// What is said of a container that stays unfenced.
fn unfenced(late: &Late, reason: &impl Display) -> String {
    format!("error: {} runs and is NOT FENCED: {reason:#}", late.words)
}

/// Fences them one after the other. Those that cannot be fenced are named.
fn fence(all: &[Late], options: &[String], voice: Voice, paths: &Paths) {
    for late in all {
        match fence_one(late, options, voice, paths) {
            Ok(true) => voice.say(&format!(
                "warning: {} has run without its fence until now: it was made while the plugin was not connected",
                late.words
            )),
            Ok(false) => {}
            Err(error) => voice.say(&unfenced(late, &error)),
        }
    }
}

/// Fences one; `false` if it has a fence.
fn fence_one(late: &Late, options: &[String], voice: Voice, paths: &Paths) -> Result<bool> {
    let asked = match &late.asked {
        Ok(asked) => &asked.options,
        Err(refusal) => anyhow::bail!("{}", refusal.message()),
    };
    if is_fenced(&late.id, paths)? {
        return Ok(false);
    }
    let mut attach = Command::new(&paths.program);
    attach.arg("attach");
    attach.args(words(["--container", &late.id], &late.id, options, asked));
    attach.stdin(Stdio::null()).stdout(Stdio::null());
    let ended = attach
        .output()
        .context("cannot execute qfence-user attach")?;
    let said = String::from_utf8_lossy(&ended.stderr);
    let said: Vec<_> = said
        .lines()
        .map(|line| line.strip_prefix("qfence: ").unwrap_or(line))
        .collect();
    ensure!(ended.status.success(), "{}", said.join("; "));
    for line in said {
        voice.say(line);
    }
    Ok(true)
}

/// Whether a fence is in force at the cgroup of a container.
fn is_fenced(id: &str, paths: &Paths) -> Result<bool> {
    let workload = workload::find(&Target::Container(id.to_owned()), paths)?;
    let fences = Fences::look(paths)?;
    let mount = fences.hierarchy().mount();
    let mut attached = fences.attached()?.into_iter();
    Ok(attached.any(|(name, place)| {
        place.exists()
            && place.below(mount) == Some(workload.cgroup.as_path())
            && fences.enforced(&name).is_ok()
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::nri::call::Refusal;

    #[test]
    fn what_stays_unfenced_is_named_if_no_thread_can_be_started() {
        let choice = Choice {
            program: "/q".into(),
            is_trusting: false,
            options: Vec::new(),
        };
        let mut worker = Worker::new(&choice, Voice::new(false), &Paths::default());
        let late = Late {
            id: "id".into(),
            words: "the container main of the pod shop/web".into(),
            asked: Err(Refusal::of_container("no".into())),
        };
        // No machine has that much memory.
        let builder = || Builder::new().stack_size(1 << 60);
        for _ in 0..2 {
            let said = worker.fence(builder(), vec![late.clone()]);
            let [said] = &said[..] else {
                panic!("{said:?}")
            };
            assert!(
                said.starts_with("error: the container main of the pod shop/web runs and is NOT FENCED: cannot start"),
                "{said}"
            );
        }
        assert_eq!(worker.fence(Builder::new(), vec![late]), [""; 0]);
    }
}

//! Containers that run already when the plugin connects, and that should have a fence. They are fenced as `attach --detach`
//! does it, by a process of its own each, so that the plugin answers meanwhile.

use std::{
    fmt::Display,
    process::Command,
    sync::mpsc::{Receiver, SendError, Sender, channel},
    thread::{Builder, sleep},
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

use super::{child, voice::Voice};
use crate::{
    base::{
        files::directory::Directory,
        locks::{self, Exclusive},
        paths::Paths,
    },
    fence::registry::Fences,
    workload::{
        self, Target,
        nri::{choice::Choice, found::Late},
        oci::attach::words,
    },
};

/// How long one `attach` may take.
const ATTACH: Duration = Duration::from_secs(30);

/// How long another plugin is waited for. It is longer than that one's `attach`.
const LOCK: Duration = Duration::from_secs(40);

/// The time between looks at the lock.
const PAUSE: Duration = Duration::from_millis(20);

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
    // Another plugin of qfence's may be at the same container.
    let _alone = alone(paths, LOCK)?;
    let fenced = is_fenced(&late.id, paths);
    let asked = match &late.asked {
        Ok(asked) => &asked.options,
        Err(_) if matches!(fenced, Ok(true)) => return Ok(false),
        Err(refusal) => bail!("{}", refusal.message()),
    };
    if fenced? {
        return Ok(false);
    }
    let mut attach = Command::new(&paths.program);
    attach.arg("attach");
    attach.args(words(["--container", &late.id], &late.id, options, asked));
    match child::run(attach, ATTACH) {
        Ok(said) => said.iter().for_each(|line| voice.say(line)),
        // The container has got its fence from elsewhere meanwhile.
        Err(_) if is_fenced(&late.id, paths).unwrap_or(false) => return Ok(false),
        Err(error) => return Err(error),
    }
    Ok(true)
}

/// Takes the lock of this node's plugins. After the time it returns without the lock: whoever has it does not go on, and
/// what is to be fenced does not wait for that.
fn alone(paths: &Paths, limit: Duration) -> Result<Option<Exclusive>> {
    let directory = paths.run.join("nri");
    Directory::make_private(&paths.run)?;
    Directory::make_private(&directory)?;
    let deadline = Instant::now() + limit;
    loop {
        let lock = locks::try_exclusive(&directory)?;
        if lock.is_some() || Instant::now() >= deadline {
            return Ok(lock);
        }
        sleep(PAUSE);
    }
}

/// Whether a fence is in force at the cgroup of a container.
fn is_fenced(id: &str, paths: &Paths) -> Result<bool> {
    let workload = workload::find(&Target::Container(id.to_owned()), paths)?;
    let fences = Fences::look(paths)?;
    let mount = fences.hierarchy().mount();
    for (name, place) in fences.attached()? {
        if place.exists()
            && place.below(mount) == Some(workload.cgroup.as_path())
            && fences.enforced(&name).is_ok()
        {
            check_devices(&fences, &name)?;
            return Ok(true);
        }
    }
    Ok(false)
}

/// Checks that the network devices of a fence are fenced.
///
/// # Errors
/// If one is not.
pub(super) fn check_devices(fences: &Fences, name: &str) -> Result<()> {
    let listed = fences.look_at(name.to_owned())?;
    if let Some((device, why)) = listed.unfenced.first() {
        bail!("the network device {device} of its fence {name} is not fenced: {why}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::thread::spawn;

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

    #[test]
    fn one_plugin_waits_for_the_other_and_not_for_ever() {
        let directory = tempfile::tempdir().unwrap();
        let paths = Paths {
            run: directory.path().join("run"),
            ..Paths::default()
        };
        let short = Duration::from_millis(100);
        let first = alone(&paths, short).unwrap();
        assert!(first.is_some());
        assert!(alone(&paths, short).unwrap().is_none());
        let waits = spawn(move || alone(&paths, Duration::from_secs(60)).unwrap());
        sleep(short);
        assert!(!waits.is_finished());
        drop(first);
        assert!(waits.join().unwrap().is_some());
    }
}

//! Many fences at a time, each with a process in it that is told what to do.

use std::{
    collections::BTreeMap,
    env,
    fs::{self, OpenOptions},
    io::{BufRead as _, BufReader, Write as _, pipe},
    process::{ChildStdin, Command, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::signal::Signal;
use tests::{
    fence::{Fence, qfence},
    memory::{self, Memory},
    process::Process,
    remains,
    run::HANG,
};

use crate::{
    member::{Ending, MEMBER, Word},
    trial::Trial,
};

/// Between two looks whether any has ended that should not have.
const LOOK: Duration = Duration::from_millis(500);

/// Fences, in the order in which they were started. What is left of them is removed when this is dropped.
pub(crate) struct Crowd {
    members: Vec<Member>,
    /// Which of them run.
    running: Vec<u32>,
    words: Receiver<Result<Word>>,
    errors: tempfile::NamedTempFile,
}

/// One fence.
struct Member {
    /// Its supervisor.
    supervisor: Process,
    /// The input of the process in it, which ends with that.
    input: Option<ChildStdin>,
    fence: Fence,
}

/// The memory of all supervisors, in MB.
#[derive(Clone, Copy, Default)]
pub(crate) struct Taken {
    /// With a share of what they have in common.
    pub(crate) share: f64,
    /// What is of no file.
    pub(crate) anonymous: f64,
}

impl Crowd {
    /// Starts so many, of which none is waited for, or as many as can be started in time.
    pub(crate) fn start(trial: &Trial, size: u32, until: Instant) -> Result<Self> {
        let errors = tempfile::NamedTempFile::new()?;
        let (reader, writer) = pipe().context("make a pipe")?;
        let (sender, words) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(reader).lines() {
                let word = line.map_err(Into::into).and_then(|line| {
                    serde_json::from_str(&line).with_context(|| format!("unexpected: {line}"))
                });
                if sender.send(word).is_err() {
                    break;
                }
            }
        });
        let mut crowd = Self {
            members: Vec::new(),
            running: Vec::new(),
            words,
            errors,
        };
        let program = env::current_exe()?;
        for number in 0..size {
            if Instant::now() >= until {
                break;
            }
            let fence = Fence::new("crowd")?.with(&["--user", "nobody"]);
            let mut command = fence.command(&trial.world.host, &program);
            command.arg(MEMBER).arg(number.to_string());
            command.args(Trial::destinations().iter().map(ToString::to_string));
            let errors = OpenOptions::new().append(true).open(crowd.errors.path())?;
            command
                .stdin(Stdio::piped())
                .stdout(writer.try_clone()?)
                .stderr(errors);
            let mut supervisor = Process::spawn(command)?;
            let input = supervisor.child().stdin.take();
            crowd.members.push(Member {
                supervisor,
                input,
                fence,
            });
        }
        Ok(crowd)
    }

    /// Waits until the processes in all of them run, or some time; how many do.
    pub(crate) fn await_all(&mut self, until: Instant) -> Result<u32> {
        while self.running.len() < self.members.len()
            && let Some(word) = self.next_word(until)?
        {
            self.running.push(word.number);
        }
        Ok(u32::try_from(self.running.len())?)
    }

    /// Has those that run try what they were told, all at a time; how they fared.
    pub(crate) fn ask(&mut self) -> Result<BTreeMap<u32, Vec<Ending>>> {
        let asked = self.running.clone();
        for number in &asked {
            let member = self.members.get_mut(usize::try_from(*number)?);
            let input = member.and_then(|member| member.input.as_mut());
            writeln!(input.context("nobody of that number was started")?)?;
        }
        let mut answers = BTreeMap::new();
        let until = Instant::now() + HANG;
        while answers.len() < asked.len() {
            match self.next_word(until)? {
                Some(Word { number, tried }) => match tried {
                    Some(endings) => drop(answers.insert(number, endings)),
                    // One that was late.
                    None => self.running.push(number),
                },
                None => bail!("{} of {} answer", answers.len(), asked.len()),
            }
        }
        Ok(answers)
    }

    /// The memory of their supervisors now.
    pub(crate) fn memory(&self) -> Result<Taken> {
        let mut taken = Taken::default();
        for member in &self.members {
            let pid = member.supervisor.id();
            taken.share += in_mb(memory::share(pid)?)?;
            taken.anonymous += in_mb(Memory::of(pid)?.anonymous)?;
        }
        Ok(taken)
    }

    /// Ends the processes in them, and waits until nothing is left of any.
    pub(crate) fn end(mut self) -> Result<()> {
        for member in &mut self.members {
            member.input = None;
        }
        for member in &mut self.members {
            let status = member.supervisor.wait(HANG)?;
            let status = status.context("a supervisor does not end")?;
            ensure!(status.success(), "{status}: {}", said(&self.errors));
            remains::ensure_none(member.fence.name())?;
        }
        Ok(())
    }

    /// What one says next; `None` if nobody says anything in time. An error if one has ended.
    fn next_word(&mut self, until: Instant) -> Result<Option<Word>> {
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match self.words.recv_timeout(left.min(LOOK)) {
                Ok(word) => return word.map(Some),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => bail!("all have ended"),
            }
            for member in &mut self.members {
                if let Some(status) = member.supervisor.wait(Duration::ZERO)? {
                    bail!("a supervisor has ended, {status}: {}", said(&self.errors));
                }
            }
            if left.is_zero() {
                return Ok(None);
            }
        }
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        // All of them at first: to start may take them longer than anybody is to wait. A destructor has nobody
        // to tell.
        for member in &self.members {
            let _ = member.supervisor.signal(Signal::SIGKILL);
        }
        for Member {
            supervisor, fence, ..
        } in &mut self.members
        {
            let _ = supervisor.stop();
            let is_left = remains::of(fence.name()).is_ok_and(|left| !left.is_empty());
            if is_left && let Ok(program) = qfence() {
                let _ = Command::new(program).args(["rm", fence.name()]).output();
            }
        }
    }
}

/// The end of what was printed on standard error.
fn said(errors: &tempfile::NamedTempFile) -> String {
    let text = fs::read_to_string(errors.path()).unwrap_or_default();
    let lines: Vec<_> = text.lines().rev().take(3).collect();
    lines.join("\n")
}

fn in_mb(kb: u64) -> Result<f64> {
    let kb = u32::try_from(kb).context("a supervisor is small")?;
    Ok(f64::from(kb) / 1024.0)
}

//! One connection to a runtime.

use std::{
    io::{Read as _, Write as _},
    mem,
    os::unix::net::UnixStream,
    thread::Builder,
};

use anyhow::{Context as _, Result, anyhow, bail, ensure};

use super::{
    late::{Worker, check_devices},
    voice::Voice,
};
use crate::{
    base::{paths::Paths, printable::printable},
    fence::registry::Fences,
    workload::{
        nri::{
            call::{Answer, Call, Refusal, answered, register},
            choice::{Asked, Choice, refused, words},
            found::Collected,
            messages::{Container, Pod},
            wire::{Kind, Message, Reader, Side, encode},
        },
        oci::attach::name,
        words_of_started,
    },
};

/// How many bytes are received at once.
const PIECE: usize = 1 << 16;

/// The number of the plugin's first and only call.
const REGISTER: u32 = 1;

/// A connection.
pub(super) struct Session<'a> {
    stream: &'a UnixStream,
    choice: &'a Choice,
    voice: Voice,
    paths: &'a Paths,
    worker: &'a mut Worker,
    collected: Collected,
    /// Messages that are shown after the answer.
    unsaid: Vec<String>,
}

impl<'a> Session<'a> {
    pub(super) fn new(
        stream: &'a UnixStream,
        choice: &'a Choice,
        voice: Voice,
        paths: &'a Paths,
        worker: &'a mut Worker,
    ) -> Self {
        Self {
            stream,
            choice,
            voice,
            paths,
            worker,
            collected: Collected::default(),
            unsaid: Vec::new(),
        }
    }

    /// Registers the plugin, and answers calls until the connection ends.
    ///
    /// # Errors
    /// If the runtime refuses the plugin, or what it sends cannot be understood.
    pub(super) fn serve(&mut self, name: &str, index: &str) -> Result<()> {
        self.send(
            Side::Runtime,
            Kind::Request,
            REGISTER,
            register(name, index),
        )?;
        let mut reader = Reader::default();
        let mut piece = vec![0; PIECE];
        loop {
            let length = self.stream.read(&mut piece);
            let length = length.context("cannot receive from the runtime")?;
            if length == 0 {
                return Ok(());
            }
            reader.add(piece.get(..length).unwrap_or_default());
            while let Some(message) = reader.next_message().context("the runtime's messages")? {
                self.take(&message)?;
            }
        }
    }

    fn take(&mut self, message: &Message) -> Result<()> {
        match (message.side, message.kind) {
            (Side::Plugin, Kind::Request) => {
                let answer = match Call::read(&message.data).and_then(|call| self.answer(call)) {
                    Ok(answer) => answer,
                    Err(refusal) => {
                        self.unsaid.push(format!("refused: {}", refusal.message()));
                        Answer::Refused(refusal)
                    }
                };
                let answer = answer.write();
                let sent = self.send(Side::Plugin, Kind::Response, message.stream, answer);
                for message in mem::take(&mut self.unsaid) {
                    self.voice.say(&message);
                }
                sent
            }
            (Side::Runtime, Kind::Response) if message.stream == REGISTER => {
                answered(&message.data)
                    .map_err(|reason| anyhow!("the runtime refuses the plugin: {reason}"))
            }
            _ => bail!(
                "the runtime sends an answer without a question, or a question in the wrong connection"
            ),
        }
    }

    fn send(&mut self, side: Side, kind: Kind, stream: u32, data: Vec<u8>) -> Result<()> {
        let message = Message {
            side,
            kind,
            stream,
            data,
        };
        let bytes = encode(&message)?;
        let sent = self.stream.write_all(&bytes);
        sent.context("cannot send to the runtime")
    }

    fn answer(&mut self, call: Call) -> Result<Answer, Refusal> {
        match call {
            Call::Configure(runtime) => {
                self.unsaid.push(format!(
                    "the plugin is registered with {} {}",
                    runtime.runtime_name, runtime.runtime_version
                ));
                Ok(Answer::Configured)
            }
            Call::Synchronize(call) => {
                let more = call.more;
                self.collected.add(call, self.choice)?;
                if !more {
                    self.fence_late();
                }
                Ok(Answer::Synchronized(more))
            }
            Call::Create(pod, container) => {
                let created = self.choice.create(&pod, &container)?;
                if created.adjust.is_some() {
                    self.unsaid.push(format!(
                        "the container {} of the pod {} is made with a fence",
                        container.name,
                        words(&pod)
                    ));
                }
                Ok(Answer::Created(created))
            }
            Call::Start(pod, container) => {
                if let Some(asked) = self.choice.is_missing(&pod, &container)? {
                    self.check_fence(&pod, &container, &asked)?;
                }
                Ok(Answer::Done)
            }
            Call::Other => Ok(Answer::Done),
        }
    }

    /// Checks that a container that was made without the plugin has a fence: the hook can be that of the runtime class.
    fn check_fence(&self, pod: &Pod, container: &Container, asked: &Asked) -> Result<(), Refusal> {
        has_fence(container, asked, self.paths).map_err(|error| {
            let reason = format!(
                "it was made while the plugin was not connected, and {error:#}; remove the container, and it is made anew"
            );
            refused(pod, container, &reason)
        })
    }

    /// Fences what runs already. The runtime waits for no answer that long.
    fn fence_late(&mut self) {
        let all = mem::take(&mut self.collected).late(self.choice);
        if all.is_empty() {
            return;
        }
        let unfenced = self.worker.fence(Builder::new(), all);
        self.unsaid.extend(unfenced);
    }
}

/// Checks that the fence of a container that has not started yet is in force.
///
/// # Errors
/// If it is not.
fn has_fence(container: &Container, asked: &Asked, paths: &Paths) -> Result<()> {
    let name = name(&container.id, &asked.options);
    let fences = Fences::look(paths)?;
    let attached = fences.description(name).and_then(|found| found.attached);
    let words = printable(words_of_started(&container.id).as_bytes());
    ensure!(
        attached.is_some_and(|attached| attached.workload == words),
        "has no fence"
    );
    fences.enforced(name)?;
    check_devices(&fences, name)
}

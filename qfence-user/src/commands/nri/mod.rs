//! `nri-plugin`: containerd and CRI-O ask it about each container before they make it (`workload/nri/`).
//!
//! If a plugin does not answer, or its connection ends, the runtime goes on without it. So nothing that can wait is done
//! before an answer, and what may have been made meanwhile is looked for at the next connection.

mod child;
mod late;
mod session;
mod voice;

use std::{env, os::unix::net::UnixStream, thread::sleep, time::Duration};

use anyhow::{Context as _, Result, ensure};

use self::{late::Worker, session::Session, voice::Voice};
use super::{oci::hook, require_root};
use crate::{
    base::{inherited, paths::Paths},
    cli::NriPlugin,
    workload::{nri::choice::Choice, oci::attach::words},
};

/// The variables of a plugin that the runtime has started.
const SOCKET: &str = "NRI_PLUGIN_SOCKET";
const NAME: &str = "NRI_PLUGIN_NAME";
const INDEX: &str = "NRI_PLUGIN_IDX";

/// The name of the plugin, by which a runtime can require it.
const QFENCE: &str = "qfence";

/// The time between attempts to connect. The runtime makes containers meanwhile.
const RETRY: Duration = Duration::from_millis(200);

/// Runs `nri-plugin`. It returns when the runtime that has started it ends.
///
/// # Errors
/// If the options cannot be used, or the connection to the runtime that has started it fails.
pub(super) fn run(options: &NriPlugin, paths: &Paths) -> Result<()> {
    let socket = env::var(SOCKET).ok();
    let voice = Voice::new(socket.is_some());
    let done = match &socket {
        Some(number) => launched(number, options, voice, paths),
        None => connect(options, voice, paths),
    };
    if let Err(error) = &done {
        voice.log(&format!("error: {error:#}"));
    }
    done
}

/// Serves the runtime that has started this process.
fn launched(number: &str, options: &NriPlugin, voice: Voice, paths: &Paths) -> Result<()> {
    let choice = choice(options)?;
    let number = number
        .parse()
        .with_context(|| format!("{SOCKET}={number} is no number of a descriptor"))?;
    let stream = UnixStream::from(inherited::take(number)?);
    let name = env::var(NAME).unwrap_or_else(|_| QFENCE.into());
    let index = env::var(INDEX).unwrap_or_else(|_| options.index.clone());
    let mut worker = Worker::new(&choice, voice, paths);
    Session::new(&stream, &choice, voice, paths, &mut worker).serve(&name, &index)
}

/// Serves the runtime behind a socket, and again when the connection has ended.
fn connect(options: &NriPlugin, voice: Voice, paths: &Paths) -> Result<()> {
    let choice = choice(options)?;
    let mut worker = Worker::new(&choice, voice, paths);
    let mut said = String::new();
    loop {
        let served = UnixStream::connect(&options.socket)
            .with_context(|| format!("cannot connect to {}", options.socket.display()))
            .and_then(|stream| {
                let mut session = Session::new(&stream, &choice, voice, paths, &mut worker);
                session.serve(QFENCE, &options.index)
            });
        let reason = match served {
            Ok(()) => "the runtime has ended the connection".to_owned(),
            Err(error) => format!("{error:#}"),
        };
        if reason != said {
            voice.say(&format!(
                "warning: {reason}; until the plugin is connected again, pods with annotations of qfence's start unfenced \
                 unless the runtime requires the plugin"
            ));
            said = reason;
        }
        sleep(RETRY);
    }
}

/// What the options say of fences.
fn choice(options: &NriPlugin) -> Result<Choice> {
    require_root()?;
    let program = match &options.program {
        Some(program) => program.clone(),
        None => env::current_exe().context("cannot find the path of this program")?,
    };
    ensure!(
        program.is_absolute(),
        "--program {}: give the whole path",
        program.display()
    );
    let program = program
        .to_str()
        .context("the path of the program is no text")?;
    // Otherwise each container would show the error.
    let attach = words(["--pid", "1"], "id", &options.options, &[]);
    hook::parse(attach).context("cannot understand the options of attach")?;
    Ok(Choice {
        program: program.to_owned(),
        is_trusting: options.trust_annotations,
        options: options.options.clone(),
    })
}

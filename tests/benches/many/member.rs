//! What runs in each fence: it says that it does, and when told tries to reach the host and the internet.

use std::{
    env,
    io::{self, ErrorKind, Read as _, Write as _, stdin, stdout},
    net::{SocketAddr, TcpStream},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use tests::exit::exit_code;

/// The word that makes this program one in a fence: `NUMBER ADDRESS:PORT…`.
pub(crate) const MEMBER: &str = "--member";

/// How long it waits for an answer. Many ask at a time.
const PATIENCE: Duration = Duration::from_secs(30);

/// What it says, a line at a time.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Word {
    /// Which one says it.
    pub(crate) number: u32,
    /// How it fared with each destination; `None` at first, to say that it runs.
    pub(crate) tried: Option<Vec<Ending>>,
}

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Ending {
    /// The service answered.
    Reached,
    /// As at a port that is closed, and in a fence.
    Refused,
    /// By another error.
    Failed(String),
}

/// Says that it runs, tries all destinations for every line of input, and ends with the input.
pub(crate) fn main() -> ExitCode {
    exit_code("error", run())
}

fn run() -> Result<()> {
    let mut arguments = env::args().skip(2);
    let number = arguments.next().context("a number")?.parse()?;
    let destinations = arguments
        .map(|text| text.parse().with_context(|| text))
        .collect::<Result<Vec<SocketAddr>>>()?;
    say(&Word {
        number,
        tried: None,
    })?;
    for line in stdin().lines() {
        line?;
        let tried = destinations.iter().map(attempt).collect();
        say(&Word {
            number,
            tried: Some(tried),
        })?;
    }
    Ok(())
}

/// One write, so that the lines of all who write to this pipe stay whole.
fn say(word: &Word) -> Result<()> {
    let line = serde_json::to_string(word)? + "\n";
    Ok(stdout().lock().write_all(line.as_bytes())?)
}

fn attempt(destination: &SocketAddr) -> Ending {
    let reach = || -> io::Result<()> {
        let mut service = TcpStream::connect_timeout(destination, PATIENCE)?;
        service.set_read_timeout(Some(PATIENCE))?;
        service.read_exact(&mut [0])
    };
    match reach() {
        Ok(()) => Ending::Reached,
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => Ending::Refused,
        Err(error) => Ending::Failed(error.to_string()),
    }
}

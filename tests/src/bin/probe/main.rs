//! `probe [--timeout-ms N] ATTEMPT…`: makes attempts and prints one JSON line for each, as `qfence-verify probe` does. Most
//! are probes, written as for that program. Others are exchanges with a server, and system calls in a MANNER: `native`,
//! `compat` (of 32 bits), `socketcall`, `ring` (by an io_uring that a call of 32 bits set up), or `long` (with a value of
//! more than a page).
//!
//! `probe --flood N ATTEMPT`: the same attempt N times in a row, and one line of counts.
//!
//! `probe [--for-ms N] --connect-each FILE`: connects to each destination in a file, `tcp/ADDRESS/PORT` or
//! `udp/ADDRESS/PORT` a line, without waiting for an answer; once, or for some time over and over. One
//! line of counts for each.
//!
//! `probe [--for-ms N] --load KIND/ADDRESS/PORT`: one kind of traffic for some time, and one line of how much
//! there was. `upload` (to a sink), `download` (from a source): bytes; `open`: connections that are greeted;
//! `round-trip`: messages to an echo and back; `connect-udp`, `send-udp`: calls.
//!
//! `probe --hear PORT/GROUP/DEVICE`: says who sends to that port, until it is killed.
//!
//! `probe --join GROUP/DEVICE`: joins a group in every way there is, and says how each ended.
//!
//! `probe --forge DEVICE/SOURCE:PORT/DESTINATION:PORT`: puts one datagram on a device.
//!
//! `probe --hold tcp/ADDRESS/PORT…`: keeps connections to echoes, and says how they fare.
//!
//! `probe --serve tcp/PORT|udp/PORT…`: greets whoever comes, until it is killed.
//! `udp-connected` and `udp-new` answer from a socket that is connected to the peer: the same one, or
//! a new one on the same port. `echo-tcp`, `echo-mptcp` and `echo-udp` send
//! back what comes; `sink-tcp` takes it and says how much it was; `source-tcp` sends without end.

mod attempt;
mod bulk;
mod connect;
mod connect_each;
mod dns;
mod flood;
mod forge;
mod hear;
mod hold;
mod join;
mod keys;
mod load;
mod serve;

use std::{
    io::{Write as _, stdout},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use attempt::Attempt;
use tests::exit::exit_code;

const USAGE: &str = "probe [--timeout-ms N] [--flood N] ATTEMPT… | probe --serve tcp/PORT|udp/PORT…
       probe [--for-ms N] --connect-each FILE | probe [--for-ms N] --load KIND/ADDRESS/PORT
       probe --hear PORT/GROUP/DEVICE | probe --forge DEVICE/SOURCE:PORT/DESTINATION:PORT
       probe --join GROUP/DEVICE | probe --hold KIND/ADDRESS/PORT…
ATTEMPT: METHOD/ADDRESS[/PORT][+OPTION…] (see `qfence-verify probe --help`)
         dns/SERVER/NAME dns-tcp/SERVER/NAME bulk-tcp/ADDRESS/PORT bulk-udp/ADDRESS/PORT
         ping-by/MANNER/ADDRESS option/MANNER/LEVEL/NAME ioctl/REQUEST keys/MANNER/search|call-out|add|control";

fn main() -> ExitCode {
    exit_code("probe", run(std::env::args().skip(1)))
}

fn run(mut arguments: impl Iterator<Item = String>) -> Result<()> {
    let mut limit = Duration::from_secs(2);
    let mut flood = None;
    let mut lasting = Duration::ZERO;
    let mut attempts = Vec::new();
    while let Some(argument) = arguments.next() {
        let mut number = || arguments.next().and_then(|text| text.parse().ok());
        match argument.as_str() {
            "--timeout-ms" => limit = Duration::from_millis(number().context(USAGE)?),
            "--flood" => flood = Some(number().context(USAGE)?),
            "--for-ms" => lasting = Duration::from_millis(number().context(USAGE)?),
            "--connect-each" => {
                return connect_each::run(&arguments.next().context(USAGE)?, lasting);
            }
            "--load" => {
                let load = load::run(&arguments.next().context(USAGE)?, lasting)?;
                return print(&serde_json::to_string(&load)?);
            }
            "--serve" => return serve::run(arguments),
            "--forge" => return forge::run(&arguments.next().context(USAGE)?),
            "--join" => return join::run(&arguments.next().context(USAGE)?),
            "--hold" => return hold::run(arguments),
            "--hear" => return hear::run(&arguments.next().context(USAGE)?),
            text if text.starts_with('-') => bail!(USAGE),
            _ => attempts.push(argument),
        }
    }
    match (flood, attempts.as_slice()) {
        (_, []) => bail!(USAGE),
        (None, attempts) => attempts.iter().try_for_each(|text| {
            print(&serde_json::to_string(
                &Attempt::parse(text)?.make(text, limit),
            )?)
        }),
        (Some(count), [text]) => print(&serde_json::to_string(&flood::run(
            &Attempt::parse(text)?,
            text,
            count,
            limit,
        )?)?),
        (Some(_), _) => bail!("one attempt to flood with, please"),
    }
}

fn print(line: &str) -> Result<()> {
    writeln!(stdout(), "{line}").context("write to stdout")
}

//! `probe [--timeout-ms N] ATTEMPT…`: makes attempts and prints one JSON line for each, as `qfence-verify probe` does. Most
//! are probes, in the syntax of that program. Others are exchanges with a server, and system calls in a MANNER: `native`,
//! `compat` (32-bit), `socketcall`, `ring` (by an io_uring that a 32-bit call set up), or `long` (with a value of more
//! than a page).
//!
//! `probe --flood N ATTEMPT`: makes one attempt N times in a row, and prints one line of counts.
//!
//! `probe [--for-ms N] --connect-each FILE`: connects to each destination in a file, with `tcp/ADDRESS/PORT` or
//! `udp/ADDRESS/PORT` in each line, without waiting for an answer; once, or repeatedly for this time. Prints one line of
//! counts for each.
//!
//! `probe [--for-ms N] --load KIND/ADDRESS/PORT`: makes one kind of traffic for this time, and prints one line with its
//! amount. `upload` (to a sink) and `download` (from a source) count bytes, `open` connections that are greeted,
//! `round-trip` messages to an echo server and back, `connect-udp` and `send-udp` calls. `look-up` looks a name up again and
//! again, `look-up-new` new names, `look-up-refused` one that does not exist; `look-ups`, `look-ups-new` and `look-ups-refused`
//! do the same by eight clients at once. `look-up-flood` sends queries without waiting for answers.
//!
//! `probe [--for-ms N] --race KIND/PORT`: opens and closes a listener on loopback for this time, and sends to it meanwhile.
//! Prints one line of counts.
//!
//! `probe [--for-ms N] --torn SOURCE/NAMESERVER/OTHER/PORT`: connects a UDP socket to port 53 of one address and to a port of
//! another in turn for this time, and sends by it meanwhile. Prints one line of counts.
//!
//! `probe [--for-ms N] --lock ADDRESS/PORT/COUNT/FILE`: begins so many connections every second for this time, and has the
//! kernel wait for the first page of the file while it has locked their sockets. Prints `locked` for each second, and does not
//! end before the page is there.
//!
//! `probe --hear PORT/GROUP/DEVICE`: prints the senders of datagrams to that port, until it is killed.
//!
//! `probe --join GROUP/DEVICE`: joins a group by every socket option that can, and prints the result of each.
//!
//! `probe --forge DEVICE/SOURCE:PORT/DESTINATION:PORT`: sends one datagram with a forged source out of a device.
//!
//! `probe --give SOCKET FILE`: opens a file, and hands it to `probe --take SOCKET`, which prints whether it got it.
//!
//! `probe --hold tcp/ADDRESS/PORT…`: keeps connections to echo servers, and reports their state.
//!
//! `probe --serve tcp/PORT|udp/PORT…`: greets every peer, until it is killed. `udp-connected` and `udp-new` answer from a
//! socket that is connected to the peer: the same one, or a new one on the same port. `echo-tcp`, `echo-mptcp` and
//! `echo-udp` send all data back; `sink-tcp` receives it and reports its amount; `source-tcp` sends without end. `dns-udp` is a
//! nameserver for the look-ups above.

mod attempt;
mod bulk;
mod connect;
mod connect_each;
mod dns;
mod flood;
mod forge;
mod hand;
mod hear;
mod hold;
mod join;
mod keys;
mod load;
mod lock;
mod look_up;
mod pair;
mod race;
mod serve;
mod torn;

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
       probe [--for-ms N] --race KIND/PORT
       probe [--for-ms N] --torn SOURCE/NAMESERVER/OTHER/PORT
       probe [--for-ms N] --lock ADDRESS/PORT/COUNT/FILE
       probe --hear PORT/GROUP/DEVICE | probe --forge DEVICE/SOURCE:PORT/DESTINATION:PORT
       probe --join GROUP/DEVICE | probe --hold KIND/ADDRESS/PORT…
       probe --take SOCKET | probe --give SOCKET FILE
ATTEMPT: METHOD/ADDRESS[/PORT][+OPTION…] (see `qfence-verify probe --help`)
         dns/SERVER/NAME dns-tcp/SERVER/NAME bulk-tcp/ADDRESS/PORT bulk-udp/ADDRESS/PORT
         pair/LISTEN/CONNECT/MANNER ping-by/MANNER/ADDRESS option/MANNER/LEVEL/NAME
         beside/MANNER/tcp|udp/ADDRESS/PORT ioctl/REQUEST keys/MANNER/search|call-out|add|control";

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
            "--race" => {
                let race = race::run(&arguments.next().context(USAGE)?, lasting)?;
                return print(&serde_json::to_string(&race)?);
            }
            "--torn" => {
                let torn = torn::run(&arguments.next().context(USAGE)?, lasting)?;
                return print(&serde_json::to_string(&torn)?);
            }
            "--lock" => return lock::run(&arguments.next().context(USAGE)?, lasting),
            "--serve" => return serve::run(arguments),
            "--forge" => return forge::run(&arguments.next().context(USAGE)?),
            "--join" => return join::run(&arguments.next().context(USAGE)?),
            "--hold" => return hold::run(arguments),
            "--take" => return hand::take(&arguments.next().context(USAGE)?),
            "--give" => {
                let path = arguments.next().context(USAGE)?;
                return hand::give(&path, &arguments.next().context(USAGE)?);
            }
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
        (Some(_), _) => bail!("--flood takes one attempt"),
    }
}

fn print(line: &str) -> Result<()> {
    writeln!(stdout(), "{line}").context("write to stdout")
}

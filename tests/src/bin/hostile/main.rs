//! A program that lies about itself, and has others wait for it. What it does is said by the variable `HOSTILE`, word by
//! word, so that its arguments can be those of another program:
//!
//! | word | |
//! |---|---|
//! | `send:PORT`, `udp:PORT` | a datagram to 127.0.0.1, from a socket that is not connected, or that is |
//! | `tcp:PORT`, `oob:PORT` | a connection there; from a socket that takes urgent data in line |
//! | `child:WORD+WORD` | does these things in a process of the same file |
//! | `long:BYTES` | has so many bytes of arguments, all of them zero |
//! | `mute:DIRECTORY` | serves a file system there that never answers a read, and has a process use it |
//! | `stuck:DIRECTORY` | that one: what it has of memory is locked from then on; a datagram to port 9 |
//! | `headless:PORT` | its first thread ends; another sends a datagram there, rests, and ends the process |
//! | `rest:MILLISECONDS` | does nothing |
//! | `wait` | until the end of its input |

mod arguments;
mod headless;
mod mute;

use std::{
    env,
    io::{Read as _, Write as _, stdin, stdout},
    net::{Ipv4Addr, SocketAddrV4},
    process::{Command, ExitCode},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use socket2::{Domain, SockAddr, Socket, Type};
use tests::exit::exit_code;

/// What it is to do.
const WORDS: &str = "HOSTILE";

fn main() -> ExitCode {
    exit_code("hostile", run())
}

fn run() -> Result<()> {
    for word in env::var(WORDS)?.split(' ') {
        act(word).with_context(|| word.to_owned())?;
    }
    Ok(())
}

fn act(word: &str) -> Result<()> {
    let (verb, object) = word.split_once(':').unwrap_or((word, ""));
    match verb {
        "send" => {
            // That it is refused is what it is for.
            let _ = Socket::new(Domain::IPV4, Type::DGRAM, None)?.send_to(b"!", &host(object)?);
        }
        "udp" => {
            let _ = Socket::new(Domain::IPV4, Type::DGRAM, None)?.connect(&host(object)?);
        }
        "tcp" | "oob" => {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
            socket.set_out_of_band_inline(verb == "oob")?;
            let _ = socket.connect(&host(object)?);
        }
        "child" => {
            let mut child = Command::new("/proc/self/exe");
            let status = child.env(WORDS, object.replace('+', " ")).status()?;
            ensure!(status.success(), "{status}");
        }
        "mute" => mute::serve_stuck(object.as_ref())?,
        "stuck" => mute::get_stuck(object.as_ref())?,
        "long" => arguments::lengthen(object.parse()?)?,
        "headless" => headless::go_on(host(object)?)?,
        "rest" => thread::sleep(Duration::from_millis(object.parse()?)),
        "wait" => {
            writeln!(stdout(), "waiting")?;
            stdin().read_to_end(&mut Vec::new())?;
        }
        _ => bail!("no such word"),
    }
    Ok(())
}

/// A port of the host's.
fn host(port: &str) -> Result<SockAddr> {
    Ok(SocketAddrV4::new(Ipv4Addr::LOCALHOST, port.parse()?).into())
}

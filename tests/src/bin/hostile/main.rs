//! A program that forges facts about itself and makes others wait for it. The variable `HOSTILE` lists its actions as
//! words, so that its arguments can be those of another program:
//!
//! | word | action |
//! |---|---|
//! | `send:PORT`, `udp:PORT` | sends a datagram to 127.0.0.1; connects a UDP socket to it |
//! | `tcp:PORT`, `oob:PORT` | connects to 127.0.0.1; from a socket with `SO_OOBINLINE` |
//! | `child:WORD+WORD` | does these actions in a child process of the same executable |
//! | `long:BYTES` | replaces its arguments by this number of zeros |
//! | `mute:DIRECTORY` | mounts a file system there that never answers a read, and starts a process that uses it |
//! | `stuck:DIRECTORY` | is that process: locks its own memory, and then sends a datagram to port 9 |
//! | `epoll:FILE` | waits for events of an epoll instance, which are written to a page of the file |
//! | `headless:PORT` | ends its first thread; another sends a datagram to 127.0.0.1, sleeps, and ends the process |
//! | `rest:MILLISECONDS` | sleeps |
//! | `wait` | waits for the end of its input |

mod arguments;
mod epoll;
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

/// The variable with the actions.
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
            // The refusal is the purpose.
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
        "epoll" => epoll::wait_in(object.as_ref())?,
        "long" => arguments::lengthen(object.parse()?)?,
        "headless" => headless::go_on(host(object)?)?,
        "rest" => thread::sleep(Duration::from_millis(object.parse()?)),
        "wait" => {
            writeln!(stdout(), "waiting")?;
            stdin().read_to_end(&mut Vec::new())?;
        }
        _ => bail!("unknown word"),
    }
    Ok(())
}

/// A port on the host.
fn host(port: &str) -> Result<SockAddr> {
    Ok(SocketAddrV4::new(Ipv4Addr::LOCALHOST, port.parse()?).into())
}

//! A process that continues without its first thread.

use std::{fs, process, thread, time::Duration};

use anyhow::{Context as _, Result};
use nix::libc;
use socket2::{Domain, SockAddr, Socket, Type};

/// Ends the first thread. Then another thread sends a datagram, sleeps for a while, and ends the process.
pub(crate) fn go_on(destination: SockAddr) -> Result<()> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
    let stat = format!("/proc/{0}/task/{0}/stat", process::id());
    thread::Builder::new()
        .spawn(move || {
            while !fs::read_to_string(&stat).is_ok_and(|stat| stat.contains(") Z ")) {
                thread::sleep(Duration::from_millis(1));
            }
            // The refusal is the purpose.
            let _ = socket.send_to(b"!", &destination);
            thread::sleep(Duration::from_secs(3));
            process::exit(0);
        })
        .context("start a thread")?;
    // SAFETY: this thread ends here without unwinding; no other thread uses its stack.
    unsafe { libc::syscall(libc::SYS_exit, 0) };
    Ok(())
}

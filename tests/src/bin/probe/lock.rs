//! Connections that begin while their sockets stay locked: the kernel copies the value of an option from a page of a file that
//! does not answer.

use std::{
    fs::File,
    io::{Write as _, stdout},
    net::SocketAddr,
    num::NonZero,
    os::fd::AsRawFd as _,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use nix::{
    libc,
    sys::mman::{MapFlags, ProtFlags, mmap},
};
use qfence_user::probe::compat::{BELOW_4_GB, set_option_from};
use socket2::{Domain, Socket, Type};

/// How often connections begin.
const INTERVAL: Duration = Duration::from_secs(1);

/// The length of the option's value, and the size of the mapping, in bytes.
const LENGTH: usize = 8;
const PAGE: NonZero<usize> = NonZero::new(4096).unwrap();

/// Runs `ADDRESS/PORT/COUNT/FILE` for this time.
pub(crate) fn run(text: &str, lasting: Duration) -> Result<()> {
    ensure!(
        cfg!(target_arch = "x86_64"),
        "--lock makes 32-bit calls, which a 64-bit program can make on x86_64 only"
    );
    let parts: Vec<&str> = text.splitn(4, '/').collect();
    let [address, port, count, path] = parts[..] else {
        anyhow::bail!("expected ADDRESS/PORT/COUNT/FILE");
    };
    let to = SocketAddr::new(address.parse()?, port.parse()?);
    let count: usize = count.parse()?;
    // The path is absolute: its first slash divides it from the count.
    let path = format!("/{}", path.trim_start_matches('/'));
    let file = File::open(&path).with_context(|| format!("open {path}"))?;
    let flags = MapFlags::MAP_PRIVATE | MapFlags::from_bits_retain(BELOW_4_GB);
    // SAFETY: a new mapping, which exists until the end of the process.
    let page = unsafe { mmap(None, PAGE, ProtFlags::PROT_READ, flags, &file, 0) };
    let page = page.context("map the file")?.as_ptr().addr();
    let end = Instant::now() + lasting;
    while Instant::now() < end {
        for _ in 0..count {
            let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
            socket.set_nonblocking(true)?;
            // It is in progress, or refused at once; the latter shows in the test.
            let _ = socket.connect(&to.into());
            thread::spawn(move || {
                let at = std::ptr::with_exposed_provenance(page);
                let (level, name) = (libc::IPPROTO_IP, libc::IP_OPTIONS);
                // SAFETY: the page is mapped for as long as this process lives.
                unsafe { set_option_from(socket.as_raw_fd(), level, name, at, LENGTH) }
            });
        }
        writeln!(stdout(), "locked").context("write to stdout")?;
        thread::sleep(INTERVAL);
    }
    Ok(())
}

//! The descriptors that a container's first process has before its runtime executes the container's program. They are not all
//! the container's: podman keeps sockets open at the ports that it publishes, and crun inherits them.
//!
//! crun closes the descriptors from 3 on before it executes that program, except as many as its option `--preserve-fds` and the
//! variable LISTEN_FDS say (`container_init` in crun's src/libcrun/container.c, `crun_command_create` in src/create.c). runc
//! inherits none.

use nix::unistd::Pid;

use crate::{
    base::{files::bounded, paths::Paths},
    workload::descriptor,
};

/// The most bytes of arguments and of an environment that are read. With more, nothing is known.
const WORDS: u64 = 1 << 20;

/// The number of standard input, output and errors.
const STANDARD: i32 = 3;

/// Whether a descriptor of a container's first process is closed before the container's program runs. `false` if that is not
/// known.
#[must_use]
pub fn closes(pid: Pid, descriptor: i32, paths: &Paths) -> bool {
    if descriptor::is_closed_on_exec(pid, descriptor, paths) {
        return true;
    }
    let process = paths.proc.join(pid.to_string());
    let read = |name| bounded::read(&process.join(name), WORDS).ok();
    let (Some(arguments), Some(environment)) = (read("cmdline"), read("environ")) else {
        return false;
    };
    descriptor >= STANDARD && crun_keeps_none(&arguments, &environment)
}

/// Whether a process is crun's, which gives no descriptor to the container beside the standard ones. Both texts end each of
/// their words by a zero byte, as in procfs.
fn crun_keeps_none(arguments: &[u8], environment: &[u8]) -> bool {
    let mut words = arguments.split(|byte| *byte == 0);
    let program = words.next().unwrap_or_default();
    let name = program.rsplit(|byte| *byte == b'/').next();
    // The option can be shortened (argp), and the last word could be anything.
    let keeps = |word: &[u8]| word.starts_with(b"--pr");
    let listens = |word: &[u8]| word.starts_with(b"LISTEN_FDS=");
    name == Some(b"crun") && !words.any(keeps) && !environment.split(|byte| *byte == 0).any(listens)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crun_keeps_what_it_is_told_to_keep() {
        let crun = b"/usr/bin/crun\0--root=/run/crun\0create\0--bundle\0/b\0--pid-file\0/p\0id\0";
        let environment = b"PATH=/bin\0NOTIFY_SOCKET=\0";
        assert!(crun_keeps_none(crun, environment));
        assert!(crun_keeps_none(b"crun\0create\0id\0", b""));
        for arguments in [
            &b"/usr/bin/runc\0create\0id\0"[..],
            b"/usr/bin/crun-wrapper\0create\0id\0",
            b"crun\0create\0--preserve-fds\x001\0id\0",
            b"crun\0create\0--preserve-fds=1\0id\0",
            b"crun\0create\0--pres\x001\0id\0",
            b"",
        ] {
            assert!(!crun_keeps_none(arguments, environment), "{arguments:?}");
        }
        assert!(!crun_keeps_none(crun, b"PATH=/bin\0LISTEN_FDS=1\0"));
    }

    #[test]
    fn nothing_is_known_of_a_process_that_is_no_runtime() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let kept = nix::unistd::dup(&listener).unwrap();
        let number = |file: &dyn std::os::fd::AsRawFd| file.as_raw_fd();
        let paths = Paths::default();
        assert!(closes(Pid::this(), number(&listener), &paths));
        assert!(!closes(Pid::this(), number(&kept), &paths));
        assert!(!closes(Pid::from_raw(i32::MAX), 5, &paths));
    }
}

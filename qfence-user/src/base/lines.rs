//! Writes whole lines to files that may take only a part of one: a full disk, or a terminal or pipe in non-blocking
//! mode. Others who share the terminal can set that mode, since `O_NONBLOCK` belongs to the open file description.

use std::{
    io::{self, ErrorKind, Write},
    os::fd::AsFd,
    thread,
    time::Duration,
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};

/// The pause after a descriptor polls as writable but takes nothing.
const PAUSE: Duration = Duration::from_millis(20);

/// The state of a file that lines are written to.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Lines {
    /// Whether the last line is incomplete.
    is_within: bool,
}

impl Lines {
    /// The state of a file whose last line is incomplete or complete.
    pub(crate) const fn within(is_within: bool) -> Self {
        Self { is_within }
    }

    /// Writes complete lines in one call, if the file takes all of them. After an incomplete line it writes the rest
    /// of that line first. Waits for non-blocking files, which may be for ever.
    ///
    /// # Errors
    /// Errors of the write. A part of a line may be written then.
    pub(crate) fn write(&mut self, file: &mut (impl Write + AsFd), text: &str) -> io::Result<()> {
        let ended;
        let text = if self.is_within {
            ended = format!("\n{text}");
            &ended
        } else {
            text
        };
        let mut rest = text.as_bytes();
        let mut has_waited = false;
        while !rest.is_empty() {
            match file.write(rest) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => {
                    self.is_within = rest.get(count - 1) != Some(&b'\n');
                    rest = rest.get(count..).unwrap_or_default();
                    has_waited = false;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    if has_waited {
                        thread::sleep(PAUSE);
                    }
                    wait_for_room(file)?;
                    has_waited = true;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

fn wait_for_room(file: &impl AsFd) -> io::Result<()> {
    let mut polled = [PollFd::new(file.as_fd(), PollFlags::POLLOUT)];
    match poll(&mut polled, PollTimeout::NONE) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs::File,
        io::{PipeWriter, Read as _, pipe},
        os::fd::BorrowedFd,
    };

    use nix::fcntl::{FcntlArg, OFlag, fcntl};

    use super::*;

    /// Takes as many bytes as it has room for, then fails.
    struct Small {
        taken: Vec<u8>,
        room: usize,
        fd: PipeWriter,
    }

    impl Write for Small {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let count = bytes.len().min(self.room);
            if count == 0 {
                return Err(ErrorKind::StorageFull.into());
            }
            self.taken.extend_from_slice(&bytes[..count]);
            self.room -= count;
            Ok(count)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl AsFd for Small {
        fn as_fd(&self) -> BorrowedFd<'_> {
            self.fd.as_fd()
        }
    }

    #[test]
    fn half_a_line_does_not_spoil_the_next_one() {
        let mut small = Small {
            taken: Vec::new(),
            room: 8,
            fd: pipe().unwrap().1,
        };
        let mut lines = Lines::default();
        lines.write(&mut small, "first\n").unwrap();
        lines.write(&mut small, "second\n").unwrap_err();
        lines.write(&mut small, "third\n").unwrap_err();
        small.room = 1;
        // It has room for the end of the line, which begins no new line.
        lines.write(&mut small, "third\n").unwrap_err();
        small.room = 100;
        lines.write(&mut small, "fourth\n").unwrap();
        lines.write(&mut small, "fifth\n").unwrap();
        let text = String::from_utf8(small.taken).unwrap();
        assert_eq!(text, "first\nse\nfourth\nfifth\n");
    }

    #[test]
    fn what_does_not_wait_by_itself_is_waited_for() {
        let (mut reader, mut writer) = pipe().unwrap();
        fcntl(&writer, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
        let line = format!("{}\n", "x".repeat(1500));
        let all = line.repeat(100);
        let writing = thread::spawn(move || {
            let mut lines = Lines::default();
            (0..100).try_for_each(|_| lines.write(&mut writer, &line))
        });
        thread::sleep(Duration::from_millis(50));
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        writing.join().unwrap().unwrap();
        assert_eq!(text, all);
        // Nobody reads any more.
        let mut writer = File::from(std::os::fd::OwnedFd::from({
            let (reader, writer) = pipe().unwrap();
            drop(reader);
            writer
        }));
        assert!(Lines::default().write(&mut writer, "x\n").is_err());
    }
}

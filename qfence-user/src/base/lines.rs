//! Writes lines as wholes to what can fail in the middle of one: a disk that is full, or a terminal or a pipe that others
//! share and have made one that does not wait (`O_NONBLOCK` is the open file description's, not the descriptor's).

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

/// How long what says that it takes more, and then takes nothing, is left alone.
const PAUSE: Duration = Duration::from_millis(20);

/// Where lines are written to, as far as it has come.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Lines {
    /// Whether the last line has no end.
    is_within: bool,
}

impl Lines {
    /// The end of something of which the last line has no end, or has one.
    pub(crate) const fn within(is_within: bool) -> Self {
        Self { is_within }
    }

    /// Writes text of whole lines, in one call as long as all of it is taken; after half a line it begins with the
    /// end of that. What does not wait by itself is waited for: this may last for ever.
    ///
    /// # Errors
    /// What the write fails with; half a line may be written then.
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

    /// Takes as many bytes as it has room for, and then fails.
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
        // It has room for the end of the line, and that is no line begun.
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

//! Bytes of the socket between a runtime and its plugin, as messages.
//!
//! The socket carries two connections (github.com/containerd/nri, pkg/net/multiplex). Each frame has the number of its
//! connection (4 bytes), its length (4 bytes), and a piece of that connection's bytes. These are messages of ttrpc
//! (github.com/containerd/ttrpc, PROTOCOL.md): the length of the data (4 bytes), the number of the stream (4 bytes), a type
//! and flags (1 byte each), and the data. Numbers are big-endian. A message can be in several frames.
//!
//! What is kept is bounded: at most one message and one frame for each connection, and one frame of the socket.

use std::mem::size_of;

/// The most bytes of data in a message: the limit of ttrpc.
pub const LONGEST: usize = 4 << 20;

const FRAME_HEADER: usize = 2 * size_of::<u32>();
const MESSAGE_HEADER: usize = 10;

/// The most bytes in a frame that is received: the limit of a runtime.
const LONGEST_FRAME: usize = MESSAGE_HEADER + LONGEST;

/// The most bytes in a frame that is sent. A runtime fails if a frame is longer than the buffer into which it reads, and
/// that of ttrpc has 4096 bytes at its smallest.
const FRAME: usize = 4096;

/// A connection on the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The runtime calls the plugin.
    Plugin,
    /// The plugin calls the runtime.
    Runtime,
}

impl Side {
    const ALL: [Self; 2] = [Self::Plugin, Self::Runtime];

    const fn number(self) -> u32 {
        match self {
            Self::Plugin => 1,
            Self::Runtime => 2,
        }
    }
}

/// The type of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A call.
    Request,
    /// The answer to one.
    Response,
}

impl Kind {
    const fn number(self) -> u8 {
        match self {
            Self::Request => 1,
            Self::Response => 2,
        }
    }
}

/// A message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Its connection.
    pub side: Side,
    /// Its type.
    pub kind: Kind,
    /// The number by which a response belongs to a request.
    pub stream: u32,
    /// Its data.
    pub data: Vec<u8>,
}

/// Why bytes are no messages. The socket is of no use then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// A frame is too long.
    #[error("a frame has {0} bytes, and {LONGEST_FRAME} is the limit")]
    Frame(usize),
    /// A message is too long.
    #[error("a message has {0} bytes, and {LONGEST} is the limit")]
    Message(usize),
    /// A message has an unexpected type, such as that of a stream of several messages.
    #[error("a message has the type {0}, and only requests (1) and responses (2) are expected")]
    Kind(u8),
}

/// Bytes that were received, without those that were taken.
#[derive(Debug, Default)]
struct Pending {
    bytes: Vec<u8>,
    taken: usize,
}

impl Pending {
    fn add(&mut self, bytes: &[u8]) {
        self.bytes.drain(..self.taken);
        self.taken = 0;
        self.bytes.extend_from_slice(bytes);
    }

    fn rest(&self) -> &[u8] {
        &self.bytes[self.taken..]
    }

    /// Takes a header and the bytes after it, if all are here.
    fn take(&mut self, header: usize, length: usize) -> Option<Vec<u8>> {
        let taken = self.rest().get(header..header + length)?.to_vec();
        self.taken += header + length;
        Some(taken)
    }
}

/// Reads messages.
#[derive(Debug, Default)]
pub struct Reader {
    socket: Pending,
    sides: [Pending; 2],
}

impl Reader {
    /// Adds what was received. Call [`next_message`](Self::next_message) until there is none before more is added.
    pub fn add(&mut self, bytes: &[u8]) {
        self.socket.add(bytes);
    }

    /// The next message; `None` if it is not complete yet. Frames of other connections are skipped.
    ///
    /// # Errors
    /// If the bytes are no messages.
    pub fn next_message(&mut self) -> Result<Option<Message>, WireError> {
        loop {
            for (side, pending) in Side::ALL.into_iter().zip(&mut self.sides) {
                if let Some(message) = message(side, pending)? {
                    return Ok(Some(message));
                }
            }
            let Some((number, length)) = numbers(self.socket.rest()) else {
                return Ok(None);
            };
            if length > LONGEST_FRAME {
                return Err(WireError::Frame(length));
            }
            let Some(piece) = self.socket.take(FRAME_HEADER, length) else {
                return Ok(None);
            };
            let side = Side::ALL.iter().position(|side| side.number() == number);
            if let Some(pending) = side.and_then(|side| self.sides.get_mut(side)) {
                pending.add(&piece);
            }
        }
    }
}

/// The two numbers at the beginning of a frame.
fn numbers(bytes: &[u8]) -> Option<(u32, usize)> {
    let (first, rest) = bytes.split_first_chunk()?;
    let (second, _) = rest.split_first_chunk()?;
    let length = usize::try_from(u32::from_be_bytes(*second)).ok()?;
    Some((u32::from_be_bytes(*first), length))
}

fn message(side: Side, pending: &mut Pending) -> Result<Option<Message>, WireError> {
    let Some(header) = pending.rest().first_chunk::<MESSAGE_HEADER>() else {
        return Ok(None);
    };
    let [a, b, c, d, e, f, g, h, kind, _flags] = *header;
    let length = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
    let stream = u32::from_be_bytes([e, f, g, h]);
    if length > LONGEST {
        return Err(WireError::Message(length));
    }
    let kinds = [Kind::Request, Kind::Response];
    let known = kinds.into_iter().find(|known| known.number() == kind);
    let kind = known.ok_or(WireError::Kind(kind))?;
    let data = pending.take(MESSAGE_HEADER, length);
    Ok(data.map(|data| Message {
        side,
        kind,
        stream,
        data,
    }))
}

/// The bytes of a message.
///
/// # Errors
/// If it is too long.
pub fn encode(message: &Message) -> Result<Vec<u8>, WireError> {
    let length = message.data.len();
    let too_long = WireError::Message(length);
    if length > LONGEST {
        return Err(too_long);
    }
    let number = |length: usize| u32::try_from(length).map_err(|_| too_long);
    let mut bytes = Vec::with_capacity(MESSAGE_HEADER + length);
    bytes.extend(number(length)?.to_be_bytes());
    bytes.extend(message.stream.to_be_bytes());
    bytes.extend([message.kind.number(), 0]);
    bytes.extend(&message.data);
    let mut frames = Vec::new();
    for piece in bytes.chunks(FRAME) {
        frames.extend(message.side.number().to_be_bytes());
        frames.extend(number(piece.len())?.to_be_bytes());
        frames.extend(piece);
    }
    Ok(frames)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(side: Side, stream: u32, length: usize) -> Message {
        Message {
            side,
            kind: Kind::Request,
            stream,
            data: vec![7; length],
        }
    }

    fn all(reader: &mut Reader, bytes: &[u8]) -> Result<Vec<Message>, WireError> {
        reader.add(bytes);
        let mut messages = Vec::new();
        while let Some(message) = reader.next_message()? {
            messages.push(message);
        }
        Ok(messages)
    }

    #[test]
    fn the_bytes_are_those_of_the_protocols() {
        let written = encode(&Message {
            side: Side::Runtime,
            kind: Kind::Response,
            stream: 3,
            data: b"ab".to_vec(),
        });
        assert_eq!(
            written.unwrap(),
            [
                0, 0, 0, 2, 0, 0, 0, 12, 0, 0, 0, 2, 0, 0, 0, 3, 2, 0, b'a', b'b'
            ]
        );
    }

    #[test]
    fn messages_are_read_in_any_pieces() {
        let sent = [
            message(Side::Plugin, 1, 0),
            message(Side::Runtime, 1, 3 * FRAME),
            message(Side::Plugin, 3, FRAME - MESSAGE_HEADER),
            message(Side::Plugin, 5, LONGEST),
        ];
        let bytes: Vec<u8> = sent.iter().flat_map(|sent| encode(sent).unwrap()).collect();
        for piece in [1 << 16, 4097] {
            let mut reader = Reader::default();
            let pieces = bytes.chunks(piece);
            let read: Vec<_> = pieces
                .flat_map(|piece| all(&mut reader, piece).unwrap())
                .collect();
            assert!(read == sent, "{piece}");
        }
    }

    #[test]
    fn the_connections_are_apart() {
        let long = encode(&message(Side::Plugin, 1, FRAME)).unwrap();
        let short = encode(&message(Side::Runtime, 9, 1)).unwrap();
        let at = FRAME_HEADER + FRAME;
        let other = [0, 0, 0, 7, 0, 0, 0, 1, 0xff];
        let mixed = [&long[..at], &short, &other, &long[at..]].concat();
        let read = all(&mut Reader::default(), &mixed).unwrap();
        assert_eq!(
            read,
            [
                message(Side::Runtime, 9, 1),
                message(Side::Plugin, 1, FRAME)
            ]
        );
    }

    #[test]
    fn what_is_too_long_is_an_error_before_it_is_here() {
        let frame = [0, 0, 0, 1, 0, 0x40, 0, 11];
        let error = all(&mut Reader::default(), &frame);
        assert_eq!(error, Err(WireError::Frame(LONGEST_FRAME + 1)));
        let long = message(Side::Plugin, 1, LONGEST + 1);
        assert_eq!(encode(&long), Err(WireError::Message(LONGEST + 1)));
        let message = [
            0, 0, 0, 1, 0, 0, 0, 10, 0, 0x40, 0, 1, 0, 0, 0, 1, 1, 0, 9, 9,
        ];
        let error = all(&mut Reader::default(), &message);
        assert_eq!(error, Err(WireError::Message(LONGEST + 1)));
        let data = [0, 0, 0, 1, 0, 0, 0, 10, 0, 0, 0, 0, 0, 0, 0, 1, 3, 0];
        let error = all(&mut Reader::default(), &data);
        assert_eq!(error, Err(WireError::Kind(3)));
    }
}

//! Looks names up, many and fast, and the nameserver for it.

use std::{
    io,
    net::{IpAddr, SocketAddr, UdpSocket},
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use tests::world::{SERVER_V4, SERVER_V6};

use crate::{
    connect::udp_socket,
    dns::{self, HEADER},
};

/// The zone of which the nameserver has all names, and the begin of those that do not exist.
const ZONE: &str = "example.org";
const REFUSED: &str = "refused";

/// The begin of names with 64 addresses, each with others. A number follows.
const MANY: &str = "many";

/// The types of addresses.
const A: u8 = 1;
const AAAA: u8 = 28;

/// For how long the answers of the nameserver are valid, in seconds.
const TTL: [u8; 4] = 300_u32.to_be_bytes();

/// How many look names up at a time.
const CLIENTS: usize = 8;

/// The time limit for an answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// The names that are looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Names {
    /// One, again and again.
    Same,
    /// Each is new.
    New,
    /// One that does not exist.
    Refused,
}

impl Names {
    fn name(self, number: u64) -> String {
        match self {
            Self::Same => format!("www.{ZONE}"),
            Self::New => format!("n{number}-{}.{ZONE}", std::process::id()),
            Self::Refused => format!("{REFUSED}.{ZONE}.invalid"),
        }
    }
}

/// Looks names up one after the other, addresses of both families in turn. Returns the number of look-ups.
pub(crate) fn one_client(server: SocketAddr, names: Names, lasting: Duration) -> Result<u64> {
    client(server, names, lasting, &AtomicU64::default())
}

/// The same by several clients at once.
pub(crate) fn many_clients(server: SocketAddr, names: Names, lasting: Duration) -> Result<u64> {
    let numbers = AtomicU64::default();
    let look_up = || client(server, names, lasting, &numbers);
    thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(look_up)).collect();
        let counts = clients.into_iter().map(|client| client.join());
        counts
            .map(|count| count.map_err(|_| io::Error::other("a client panicked"))?)
            .sum()
    })
}

fn client(server: SocketAddr, names: Names, lasting: Duration, numbers: &AtomicU64) -> Result<u64> {
    let socket = udp_socket(server)?;
    socket.connect(server)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let start = Instant::now();
    let mut answer = [0; 4096];
    let mut count = 0;
    while count == 0 || start.elapsed() < lasting {
        let name = names.name(numbers.fetch_add(1, Ordering::Relaxed));
        for kind in [A, AAAA] {
            let question = dns::question_of(&name, kind);
            socket.send(&question)?;
            let length = socket.recv(&mut answer).context("wait for an answer")?;
            let code = answer[..length].get(3).map(|flags| flags & 0xf);
            let expected = if names == Names::Refused { 3 } else { 0 };
            ensure!(
                answer[..2] == question[..2] && code == Some(expected),
                "{name}: rcode {code:?}"
            );
            count += 1;
        }
    }
    Ok(count)
}

/// Sends queries for new names without waiting for answers. Returns the number of queries.
pub(crate) fn flood(server: SocketAddr, lasting: Duration) -> Result<u64> {
    let socket = udp_socket(server)?;
    socket.connect(server)?;
    socket.set_nonblocking(true)?;
    let start = Instant::now();
    let mut count = 0;
    while start.elapsed() < lasting {
        let name = Names::New.name(count);
        match socket.send(&dns::question_of(&name, A)) {
            Ok(_) => count += 1,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::yield_now(),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(count)
}

/// Answers queries for addresses. All names have those of the internet's server, but for those that do not exist, and those
/// with many, such as `many7.example.org`.
pub(crate) fn serve(socket: &UdpSocket) {
    let mut query = [0; 512];
    loop {
        if let Ok((length, peer)) = socket.recv_from(&mut query)
            && let Some(answer) = answer(&query[..length])
        {
            let _ = socket.send_to(&answer, peer);
        }
    }
}

fn answer(query: &[u8]) -> Option<Vec<u8>> {
    let end = dns::after_name(query, HEADER)? + 4;
    let question = query.get(HEADER..end)?;
    let kind = *question.get(question.len() - 3)?;
    let first = usize::from(*question.first()?);
    let label = str::from_utf8(question.get(1..=first)?).ok()?;
    let exists = !label.starts_with(REFUSED);
    let addresses: Vec<Vec<u8>> = match (kind, SERVER_V4, SERVER_V6) {
        _ if !exists => Vec::new(),
        (A, IpAddr::V4(v4), _) => match label.strip_prefix(MANY).map(str::parse) {
            Some(number) => of_many(number.ok()?),
            None => vec![v4.octets().to_vec()],
        },
        (AAAA, _, IpAddr::V6(v6)) => vec![v6.octets().to_vec()],
        _ => Vec::new(),
    };
    // An answer by a resolver, with the bit for recursion.
    let code = if exists { 0 } else { 3 };
    let mut answer = [query.get(..2)?, &[0x81, 0x80 | code]].concat();
    answer.extend([0, 1, 0, u8::try_from(addresses.len()).ok()?, 0, 0, 0, 0]);
    answer.extend(question);
    for address in addresses {
        // The name of the question, the type, the class, and the time to live.
        answer.extend([0xc0, 12, 0, kind, 0, 1]);
        answer.extend(TTL);
        answer.extend([0, u8::try_from(address.len()).ok()?]);
        answer.extend(address);
    }
    Some(answer)
}

/// The addresses of a name with many: as many as the answer of a resolver may have.
fn of_many(number: u8) -> Vec<Vec<u8>> {
    (0..64).map(|last| vec![11, 0, number, last]).collect()
}

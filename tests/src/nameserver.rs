//! Nameservers whose answers a test chooses.

use std::{
    io::{self, Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use anyhow::{Context as _, Result};
use domain::{
    base::{Message, MessageBuilder, Name, iana::Rcode},
    rdata::{A, Aaaa, Cname},
};

use crate::namespace::Namespace;

/// The longest answer by UDP to a client that does not say what it takes.
const SHORT: usize = 512;

/// A query.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The name, in the letters of the client, without the dot at the end.
    pub name: String,
    /// The type: `A`, `AAAA`, `PTR`.
    pub kind: String,
    /// Whether it came by TCP.
    pub by_tcp: bool,
    /// The message.
    pub bytes: Vec<u8>,
}

impl Asked {
    fn of(bytes: &[u8], by_tcp: bool) -> Option<Self> {
        let message = Message::from_octets(bytes).ok()?;
        let question = message.sole_question().ok()?;
        Some(Self {
            name: question.qname().to_string(),
            kind: question.qtype().to_string(),
            by_tcp,
            bytes: bytes.to_vec(),
        })
    }

    /// An answer with these records.
    pub fn answer(&self, records: &[Record]) -> Result<Vec<u8>> {
        self.answer_with(Rcode::NOERROR, records)
    }

    /// The answer that there is no such name.
    pub fn no_name(&self) -> Result<Vec<u8>> {
        self.answer_with(Rcode::NXDOMAIN, &[])
    }

    /// An answer with those addresses, as records of the name, that are of the type in the query.
    pub fn addresses(&self, ttl: u32, addresses: &[IpAddr]) -> Result<Vec<u8>> {
        let is_wanted = |address: &&IpAddr| self.is_for(**address);
        let records = addresses
            .iter()
            .filter(is_wanted)
            .map(|address| Record::new(&self.name, ttl, Data::Address(*address)));
        self.answer(&records.collect::<Vec<_>>())
    }

    /// Whether the query is for addresses of the family of this one.
    #[must_use]
    pub fn is_for(&self, address: IpAddr) -> bool {
        self.kind == if address.is_ipv4() { "A" } else { "AAAA" }
    }

    /// An answer without records that says that it is cut off.
    pub fn cut_off(&self) -> Result<Vec<u8>> {
        let message = Message::from_octets(&self.bytes[..])?;
        let mut answer = MessageBuilder::new_vec().start_answer(&message, Rcode::NOERROR)?;
        answer.header_mut().set_tc(true);
        Ok(answer.finish())
    }

    fn answer_with(&self, rcode: Rcode, records: &[Record]) -> Result<Vec<u8>> {
        let message = Message::from_octets(&self.bytes[..])?;
        let mut answers = MessageBuilder::new_vec().start_answer(&message, rcode)?;
        // The C library takes an empty answer without it for a referral, and asks the next nameserver.
        answers.header_mut().set_ra(true);
        for Record { owner, ttl, data } in records {
            let owner = name(owner)?;
            match data {
                Data::Address(IpAddr::V4(v4)) => answers.push((owner, *ttl, A::new(*v4)))?,
                Data::Address(IpAddr::V6(v6)) => answers.push((owner, *ttl, Aaaa::new(*v6)))?,
                Data::Alias(to) => answers.push((owner, *ttl, Cname::new(name(to)?)))?,
            }
        }
        Ok(answers.finish())
    }

    /// The longest answer that the client takes.
    fn longest(&self) -> usize {
        if self.by_tcp {
            return usize::MAX;
        }
        let message = Message::from_octets(&self.bytes[..]).ok();
        let options = message.and_then(|message| message.opt());
        let size = options.map(|options| usize::from(options.udp_payload_size()));
        size.map_or(SHORT, |size| size.max(SHORT))
    }
}

fn name(text: &str) -> Result<Name<Vec<u8>>> {
    Name::vec_from_str(text).with_context(|| format!("the name {text}"))
}

/// A record of an answer.
#[derive(Clone, Debug)]
pub struct Record {
    owner: String,
    ttl: u32,
    data: Data,
}

impl Record {
    /// A record of `owner`.
    #[must_use]
    pub fn new(owner: &str, ttl: u32, data: Data) -> Self {
        Self {
            owner: owner.to_owned(),
            ttl,
            data,
        }
    }
}

/// The data of a record.
#[derive(Clone, Debug)]
pub enum Data {
    /// An address.
    Address(IpAddr),
    /// Another name of the owner.
    Alias(String),
}

type Script = dyn Fn(&Asked) -> Result<Vec<Vec<u8>>> + Send + Sync;

/// Nameservers with the same answers. They serve until the test's process ends.
#[derive(Clone, Debug, Default)]
pub struct Nameserver(Arc<Mutex<Vec<Asked>>>);

impl Nameserver {
    /// Serves at these addresses, by UDP and TCP. A script has the messages that are sent for each query; it may wait, for
    /// each query has a thread. An answer that is too long for a client is cut off.
    pub fn start(
        places: &[(&Namespace, SocketAddr)],
        script: impl Fn(&Asked) -> Result<Vec<Vec<u8>>> + Send + Sync + 'static,
    ) -> Result<Self> {
        let nameserver = Self::default();
        let script: Arc<Script> = Arc::new(script);
        for (namespace, address) in places {
            let bind = || Ok((UdpSocket::bind(address)?, TcpListener::bind(address)?));
            let (udp, tcp) = namespace
                .run(bind)
                .with_context(|| format!("serve at {address}"))?;
            let (server, by_udp) = (nameserver.clone(), Arc::clone(&script));
            thread::spawn(move || server.serve_udp(&udp, &by_udp));
            let (server, by_tcp) = (nameserver.clone(), Arc::clone(&script));
            thread::spawn(move || server.serve_tcp(&tcp, &by_tcp));
        }
        Ok(nameserver)
    }

    /// The queries so far.
    #[must_use]
    pub fn asked(&self) -> Vec<Asked> {
        let asked = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        asked.clone()
    }

    /// Whether anybody asked for a name so far.
    #[must_use]
    pub fn knows(&self, name: &str) -> bool {
        let is_it = |asked: &Asked| asked.name.eq_ignore_ascii_case(name);
        self.asked().iter().any(is_it)
    }

    fn serve_udp(&self, socket: &UdpSocket, script: &Arc<Script>) -> io::Result<()> {
        let mut buffer = [0; 4096];
        loop {
            let (length, client) = socket.recv_from(&mut buffer)?;
            let (server, script) = (self.clone(), Arc::clone(script));
            let (socket, query) = (socket.try_clone()?, buffer[..length].to_vec());
            thread::spawn(move || -> Result<()> {
                for answer in server.answers(&query, false, &script)? {
                    socket.send_to(&answer, client)?;
                }
                Ok(())
            });
        }
    }

    fn serve_tcp(&self, listener: &TcpListener, script: &Arc<Script>) -> io::Result<()> {
        loop {
            let (stream, _) = listener.accept()?;
            let (server, script) = (self.clone(), Arc::clone(script));
            thread::spawn(move || server.serve_connection(stream, &script));
        }
    }

    fn serve_connection(&self, mut stream: TcpStream, script: &Arc<Script>) -> Result<()> {
        loop {
            let mut length = [0; 2];
            stream.read_exact(&mut length)?;
            let mut query = vec![0; u16::from_be_bytes(length).into()];
            stream.read_exact(&mut query)?;
            for answer in self.answers(&query, true, script)? {
                let length = u16::try_from(answer.len())?.to_be_bytes();
                stream.write_all(&[&length[..], &answer].concat())?;
            }
        }
    }

    /// The answers of the script to a query. There are none if it is no query, or the script fails.
    fn answers(&self, query: &[u8], by_tcp: bool, script: &Arc<Script>) -> Result<Vec<Vec<u8>>> {
        let asked = Asked::of(query, by_tcp).context("no query")?;
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.push(asked.clone());
        drop(all);
        let longest = asked.longest();
        let fit = |answer: Vec<u8>| {
            if answer.len() > longest {
                asked.cut_off()
            } else {
                Ok(answer)
            }
        };
        script(&asked)?.into_iter().map(fit).collect()
    }
}

//! A client of a resolver.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use domain::{
    base::{
        Message, MessageBuilder, Name, Rtype,
        iana::{OptRcode, Rcode},
        opt::ExtendedError,
    },
    rdata::{A, Aaaa, Cname, Soa},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpStream, UdpSocket},
    time::timeout,
};

use super::HANG;

/// An answer, read by the crate alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answered {
    pub(super) id: u16,
    pub(super) rcode: OptRcode,
    pub(super) is_cut: bool,
    /// The name in the question, as it was sent.
    pub(super) name: String,
    pub(super) aliases: Vec<String>,
    pub(super) addresses: Vec<IpAddr>,
    /// The time to live of the records of the answer.
    pub(super) ttls: Vec<u32>,
    /// The time of a negative answer.
    pub(super) negative: Option<u32>,
    /// The code and text of the extended error.
    pub(super) error: Option<(u16, String)>,
    pub(super) length: usize,
}

impl Answered {
    fn read(bytes: &[u8]) -> Self {
        let message = Message::from_octets(bytes).unwrap();
        assert!(message.header().qr() && message.header().ra() && !message.header().aa());
        let mut read = Self {
            id: message.header().id(),
            rcode: message.opt_rcode(),
            is_cut: message.header().tc(),
            name: message.first_question().unwrap().qname().to_string(),
            aliases: Vec::new(),
            addresses: Vec::new(),
            ttls: Vec::new(),
            negative: None,
            error: None,
            length: bytes.len(),
        };
        for record in message.answer().unwrap() {
            let record = record.unwrap();
            read.ttls.push(record.ttl().as_secs());
            if let Ok(Some(found)) = record.to_record::<A>() {
                read.addresses.push(found.data().addr().into());
            } else if let Ok(Some(found)) = record.to_record::<Aaaa>() {
                read.addresses.push(found.data().addr().into());
            } else {
                let alias = record.to_record::<Cname<_>>().unwrap().unwrap();
                read.aliases.push(alias.data().to_string());
            }
        }
        for record in message.authority().unwrap() {
            let soa = record.unwrap().to_record::<Soa<_>>().unwrap().unwrap();
            assert_eq!(soa.ttl(), soa.data().minimum());
            read.negative = Some(soa.ttl().as_secs());
        }
        let options = message.opt();
        let error = options.and_then(|options| options.opt().first::<ExtendedError<_>>());
        read.error = error.map(|error| {
            let text = String::from_utf8(error.text_slice().unwrap().to_vec()).unwrap();
            (error.code().to_int(), text)
        });
        read
    }

    pub(super) fn is_code(&self, code: Rcode) -> bool {
        self.rcode == code.into()
    }
}

/// A query for a name. `longest` is the longest answer that the client takes; `None` without EDNS.
pub(super) fn query(id: u16, name: &str, kind: Rtype, longest: Option<u16>) -> Vec<u8> {
    let mut builder = MessageBuilder::new_vec();
    builder.header_mut().set_id(id);
    builder.header_mut().set_rd(true);
    let mut question = builder.question();
    question
        .push((Name::vec_from_str(name).unwrap(), kind))
        .unwrap();
    let mut additional = question.additional();
    if let Some(longest) = longest {
        let set = |options: &mut domain::base::message_builder::OptBuilder<'_, Vec<u8>>| {
            options.set_udp_payload_size(longest);
            Ok(())
        };
        additional.opt(set).unwrap();
    }
    additional.finish()
}

/// A client by UDP.
pub(super) struct Client {
    socket: UdpSocket,
    server: SocketAddr,
}

impl Client {
    pub(super) async fn of(server: SocketAddr) -> Self {
        let any: IpAddr = match server {
            SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        };
        let socket = UdpSocket::bind((any, 0)).await.unwrap();
        socket.connect(server).await.unwrap();
        Self { socket, server }
    }

    pub(super) async fn send(&self, bytes: &[u8]) {
        self.socket.send(bytes).await.unwrap();
    }

    pub(super) async fn receive(&self) -> Answered {
        let mut buffer = [0; 65_535];
        let received = timeout(HANG, self.socket.recv(&mut buffer)).await;
        Answered::read(&buffer[..received.unwrap().unwrap()])
    }

    /// Asks with EDNS, for answers of up to 4,096 bytes.
    pub(super) async fn ask(&self, name: &str, kind: Rtype) -> Answered {
        self.ask_with(name, kind, Some(4096)).await
    }

    pub(super) async fn ask_with(&self, name: &str, kind: Rtype, longest: Option<u16>) -> Answered {
        self.send(&query(1, name, kind, longest)).await;
        self.receive().await
    }

    /// Asks for an allowed name until there is an answer, as clients do where datagrams are lost.
    pub(super) async fn ask_until_answered(&self) -> Answered {
        let asking = async {
            loop {
                self.send(&query(1, "a.allowed.example", Rtype::A, None))
                    .await;
                let answered = timeout(Duration::from_secs(1), self.receive()).await;
                if let Ok(answered) = answered {
                    return answered;
                }
            }
        };
        timeout(HANG, asking).await.unwrap()
    }

    /// Asks several questions on one connection, all at once.
    pub(super) async fn ask_by_tcp(&self, questions: &[(&str, Rtype)]) -> Vec<Answered> {
        let mut stream = TcpStream::connect(self.server).await.unwrap();
        let mut bytes = Vec::new();
        for (id, (name, kind)) in (1..).zip(questions) {
            let query = query(id, name, *kind, None);
            bytes.extend(u16::try_from(query.len()).unwrap().to_be_bytes());
            bytes.extend(query);
        }
        stream.write_all(&bytes).await.unwrap();
        let mut answers = Vec::new();
        for _ in questions {
            let length = timeout(HANG, stream.read_u16()).await.unwrap().unwrap();
            let mut answer = vec![0; length.into()];
            stream.read_exact(&mut answer).await.unwrap();
            answers.push(Answered::read(&answer));
        }
        answers
    }
}

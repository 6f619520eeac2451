//! Scripted nameservers.

use std::{
    io::ErrorKind,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
};

use domain::{
    base::{Message, MessageBuilder, Name, Rtype, iana::Rcode},
    rdata::{A, Aaaa, Cname},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, UdpSocket},
};

use crate::resolver::Transport;

/// A query that a nameserver received.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) name: String,
    pub(super) kind: Rtype,
    pub(super) transport: Transport,
    pub(super) bytes: Vec<u8>,
}

impl Asked {
    pub(super) fn of(bytes: &[u8], transport: Transport) -> Self {
        let message = Message::from_octets(bytes).unwrap();
        let question = message.sole_question().unwrap();
        Self {
            name: question.qname().to_string(),
            kind: question.qtype(),
            transport,
            bytes: bytes.to_vec(),
        }
    }

    /// An answer with these records.
    pub(super) fn answer(&self, rcode: Rcode, records: &[(&str, u32, Data)]) -> Vec<u8> {
        let message = Message::from_octets(&self.bytes[..]).unwrap();
        let builder = MessageBuilder::new_vec();
        let mut answers = builder.start_answer(&message, rcode).unwrap();
        for (owner, ttl, data) in records {
            let owner = Name::vec_from_str(owner).unwrap();
            match data {
                Data::Address(IpAddr::V4(v4)) => answers.push((owner, *ttl, A::new(*v4))),
                Data::Address(IpAddr::V6(v6)) => answers.push((owner, *ttl, Aaaa::new(*v6))),
                Data::Alias(to) => {
                    let to = Name::vec_from_str(to).unwrap();
                    answers.push((owner, *ttl, Cname::new(to)))
                }
            }
            .unwrap();
        }
        answers.finish()
    }
}

/// The data of a record.
#[derive(Clone, Debug)]
pub(super) enum Data {
    Address(IpAddr),
    Alias(&'static str),
}

/// An address, as the data of a record.
pub(super) fn address(text: &str) -> Data {
    Data::Address(text.parse().unwrap())
}

type Script = dyn Fn(&Asked) -> Vec<Vec<u8>> + Send + Sync;

/// A nameserver that answers each query with the messages of a script.
pub(super) struct Scripted {
    pub(super) address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Scripted {
    pub(super) async fn by(
        script: impl Fn(&Asked) -> Vec<Vec<u8>> + Send + Sync + 'static,
    ) -> Self {
        let (udp, tcp) = loop {
            let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
            match UdpSocket::bind(tcp.local_addr().unwrap()).await {
                Ok(udp) => break (udp, tcp),
                Err(error) => assert_eq!(error.kind(), ErrorKind::AddrInUse),
            }
        };
        let scripted = Self {
            address: udp.local_addr().unwrap(),
            asked: Arc::default(),
        };
        let script: Arc<Script> = Arc::new(script);
        let (asked, by_udp) = (Arc::clone(&scripted.asked), Arc::clone(&script));
        tokio::spawn(async move {
            let mut buffer = [0; 4096];
            while let Ok((length, source)) = udp.recv_from(&mut buffer).await {
                let query = Asked::of(&buffer[..length], Transport::Udp);
                asked.lock().unwrap().push(query.clone());
                for message in by_udp(&query) {
                    udp.send_to(&message, source).await.unwrap();
                }
            }
        });
        let asked = Arc::clone(&scripted.asked);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = tcp.accept().await {
                let length = stream.read_u16().await.unwrap();
                let mut bytes = vec![0; length.into()];
                stream.read_exact(&mut bytes).await.unwrap();
                let query = Asked::of(&bytes, Transport::Tcp);
                asked.lock().unwrap().push(query.clone());
                for message in script(&query) {
                    let length = u16::try_from(message.len()).unwrap();
                    let bytes = [&length.to_be_bytes()[..], &message].concat();
                    stream.write_all(&bytes).await.unwrap();
                }
            }
        });
        scripted
    }

    /// A nameserver that answers all questions with these records.
    pub(super) async fn with(records: Vec<(&'static str, u32, Data)>) -> Self {
        Self::by(move |asked| vec![asked.answer(Rcode::NOERROR, &records)]).await
    }

    /// The queries so far.
    pub(super) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

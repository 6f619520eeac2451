//! The options of resolv.conf, and its changes.

use std::collections::BTreeSet;

use domain::base::{Rtype, iana::Rcode};

use super::{
    Scripted, Served,
    client::query,
    trouble::{RIGHT, answer, right},
    until,
};
use crate::{policy::resolv_options::ResolvOptions, resolver::Transport};

impl Served {
    /// Has the nameservers asked as a resolv.conf with these options says.
    fn with(self, options: &str) -> Self {
        let options = ResolvOptions::read(format!("options {options}\n").as_bytes());
        self.nameservers
            .send_modify(|nameservers| nameservers.options = options);
        self
    }

    /// Looks up names that no cache has.
    async fn ask_for(&self, count: usize) {
        for number in 0..count {
            let name = format!("n{number}.allowed.example");
            self.ask(&name, Rtype::A).await;
        }
    }
}

async fn working() -> Scripted {
    Scripted::by(|asked| vec![answer(asked, RIGHT)]).await
}

#[tokio::test]
async fn nameservers_take_turns_if_it_says_so() {
    for (options, counts) in [("edns0", [6, 0, 0]), ("rotate", [2, 2, 2])] {
        let servers = [working().await, working().await, working().await];
        let all: Vec<_> = servers.iter().map(|server| server.address).collect();
        let served = Served::by(&all).with(options);
        served.ask_for(6).await;
        let asked = servers.each_ref().map(|server| server.asked().len());
        assert_eq!(asked, counts, "{options}");
    }
}

#[tokio::test]
async fn no_datagram_is_sent_if_it_says_so() {
    for (options, transport) in [("edns0", Transport::Udp), ("use-vc", Transport::Tcp)] {
        let server = working().await;
        let served = Served::by(&[server.address]).with(options);
        let found = served.ask("a.allowed.example", Rtype::A).await;
        assert_eq!(found.addresses, right());
        let by: BTreeSet<_> = server.asked().iter().map(|asked| asked.transport).collect();
        assert_eq!(by, BTreeSet::from([transport]), "{options}");
    }
}

#[tokio::test]
async fn all_are_asked_as_often_as_it_says() {
    for (options, attempts) in [("edns0", 2), ("attempts:4", 4), ("attempts:9", 5)] {
        let failing = || Scripted::by(|asked| vec![asked.answer(Rcode::SERVFAIL, &[])]);
        let servers = [failing().await, failing().await];
        let all: Vec<_> = servers.iter().map(|server| server.address).collect();
        let served = Served::by(&all).with(options);
        let failed = served.ask("a.allowed.example", Rtype::A).await;
        assert!(failed.is_code(Rcode::SERVFAIL));
        let asked = servers.each_ref().map(|server| server.asked().len());
        assert_eq!(asked, [attempts; 2], "{options}");
    }
}

#[tokio::test]
async fn a_question_on_its_way_is_asked_again_of_other_nameservers() {
    let silent = Scripted::by(|_| Vec::new()).await;
    let other = working().await;
    let served = Served::by(&[silent.address]);
    let client = served.client().await;
    client
        .send(&query(1, "a.allowed.example", Rtype::A, None))
        .await;
    until(|| silent.asked().len() == 1).await;
    served
        .nameservers
        .send_modify(|nameservers| nameservers.servers = vec![other.address]);
    assert_eq!(client.receive().await.addresses, right());
    assert_eq!(served.handle.counts().asked.get(), 1);
}

//! What the nameservers answer. A name is `KIND-NUMBER.FAMILY.ZONE`: the kind is that of the answer, number and family are
//! those of its addresses.
//!
//! | kind | answer |
//! |---|---|
//! | `plain` | the address |
//! | `chain` | three aliases, in zones that no rule has, and the address |
//! | `brief` | the address with a time to live of 0 |
//! | `many` | forty addresses, which fit into a datagram of EDNS alone |
//! | `cut` | an empty answer that is cut off by UDP, and the address by TCP |
//! | `noise` | datagrams that are no answer to this query, and the address |
//! | `slow` | the address, after a while |
//! | `others` | the address, and another one as that of another name |
//! | `rebound` | the host by all its addresses, private ones, and the address |
//! | `foreign` | the address as that of another name |
//! | `garbage` | half a record |
//! | `never` | none |

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    thread,
    time::Duration,
};

use anyhow::Result;
use tests::{
    nameserver::{Asked, Data, Record},
    world::World,
};

/// The server has these addresses, by numbers.
pub(super) const V4: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 0);
pub(super) const V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x18, 0, 0, 0, 0, 0);

/// The time to live of answers, in seconds.
const TTL: u32 = 60;

/// Longer than any answer takes, and shorter than the patience of each client.
const WHILE: Duration = Duration::from_millis(700);

/// The family of a name's addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Family {
    V4,
    V6,
}

impl Family {
    pub(in super::super) const BOTH: [Self; 2] = [Self::V4, Self::V6];

    /// The label of names whose addresses are of this family.
    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::V4 => "v4",
            Self::V6 => "v6",
        }
    }

    /// The address with a number.
    pub(super) fn address(self, number: u16) -> IpAddr {
        match self {
            Self::V4 => (V4 | Ipv4Addr::from(u32::from(number))).into(),
            Self::V6 => (V6 | Ipv6Addr::from(u128::from(number))).into(),
        }
    }
}

/// The number of addresses of a name.
pub(super) fn count_of(kind: &str) -> u16 {
    match kind {
        "many" => 40,
        "others" => 2,
        _ => 1,
    }
}

/// Addresses that no name opens.
pub(super) fn of_host() -> Vec<IpAddr> {
    let mut addresses = World::host_addresses().to_vec();
    let more = [
        "127.0.0.1",
        "0.0.0.0",
        "10.1.2.3",
        "169.254.169.254",
        "224.0.0.1",
        "::1",
        "::",
        "::ffff:127.0.0.1",
        "64:ff9b::7f00:1",
        "fe80::10",
        "fd00::1",
        "ff02::1",
    ];
    addresses.extend(
        more.iter()
            .filter_map(|address| address.parse::<IpAddr>().ok()),
    );
    addresses
}

/// The messages that answer a query.
pub(super) fn answer(asked: &Asked) -> Result<Vec<Vec<u8>>> {
    let Some((kind, family, number)) = parsed(&asked.name.to_lowercase()) else {
        return Ok(vec![asked.no_name()?]);
    };
    let addresses: Vec<_> = (number..number + count_of(&kind))
        .map(|number| family.address(number))
        .collect();
    let usual = asked.addresses(TTL, &addresses);
    let messages = match kind.as_str() {
        "plain" | "many" => vec![usual?],
        "chain" => vec![asked.answer(&chain(asked, &addresses))?],
        "brief" => vec![asked.addresses(0, &addresses)?],
        "cut" if !asked.by_tcp => vec![asked.cut_off()?],
        "cut" => vec![usual?],
        "noise" if !asked.by_tcp => [noise(asked, family)?, vec![usual?]].concat(),
        "noise" => vec![usual?],
        "slow" => {
            thread::sleep(WHILE);
            vec![usual?]
        }
        "others" => vec![asked.answer(&with_others(asked, &addresses))?],
        "rebound" => {
            let all = [of_host(), addresses].concat();
            vec![asked.addresses(TTL, &all)?]
        }
        "foreign" => vec![asked.answer(&of("elsewhere.example", asked, &addresses))?],
        "garbage" => {
            let mut message = usual?;
            message.truncate(message.len().saturating_sub(3));
            vec![message]
        }
        "never" => Vec::new(),
        _ => vec![asked.no_name()?],
    };
    Ok(messages)
}

/// The kind, the family and the number in a name.
fn parsed(name: &str) -> Option<(String, Family, u16)> {
    let (host, rest) = name.split_once('.')?;
    let (kind, number) = host.split_once('-')?;
    let label = rest.split('.').next()?;
    let family = Family::BOTH
        .into_iter()
        .find(|family| family.label() == label)?;
    Some((kind.to_owned(), family, number.parse().ok()?))
}

/// The records of the wanted type that give `owner` the addresses.
fn of(owner: &str, asked: &Asked, addresses: &[IpAddr]) -> Vec<Record> {
    let is_wanted = |address: &&IpAddr| asked.is_for(**address);
    let wanted = addresses.iter().filter(is_wanted);
    wanted
        .map(|address| Record::new(owner, TTL, Data::Address(*address)))
        .collect()
}

fn chain(asked: &Asked, addresses: &[IpAddr]) -> Vec<Record> {
    const NAMES: [&str; 3] = ["a.cdn.example", "B.cdn.example", "c.elsewhere.example"];
    let mut owner = asked.name.as_str();
    let mut records = Vec::new();
    for name in NAMES {
        records.push(Record::new(owner, TTL, Data::Alias(name.to_owned())));
        owner = name;
    }
    records.extend(of(&owner.to_uppercase(), asked, addresses));
    records
}

fn with_others(asked: &Asked, addresses: &[IpAddr]) -> Vec<Record> {
    let (own, other) = addresses.split_at(1);
    let mut records = of("elsewhere.example", asked, other);
    records.extend(of(&asked.name, asked, own));
    records
}

/// Datagrams that answer nothing: no message, one with another number, one with another question.
fn noise(asked: &Asked, family: Family) -> Result<Vec<Vec<u8>>> {
    let wrong = [family.address(u16::MAX)];
    let mut other_number = asked.addresses(TTL, &wrong)?;
    if let Some(byte) = other_number.first_mut() {
        *byte ^= 0x55;
    }
    let mut other_question = asked.addresses(TTL, &wrong)?;
    // A letter of the name.
    if let Some(byte) = other_question.get_mut(13) {
        *byte ^= 1;
    }
    Ok(vec![vec![0x51; 40], other_number, other_question])
}

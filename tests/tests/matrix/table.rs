//! The table, in sections by what it is that leads to the host. A row stands for every way to every
//! destination, by every user and with every set of options: columns are separated by `|`, words in
//! capitals are sets, and the last column says what shows outside the fence that an attempt gets
//! through: `arrives`, or the device on which a capture sees it, where nobody answers.

/// Words that stand for several.
pub(crate) const SETS: [(&str, &str); 15] = [
    (
        "TCP",
        "tcp tcp-fastopen tcp-fastopen-connect tcp-reconnected tcp-uring mptcp mptcp-fastopen \
         mptcp-uring",
    ),
    (
        "UDP",
        "udp udp-connected udp-sendmmsg udp-gso udp-cork udp-more udp-large udp-zerocopy udp-splice \
         udp-elsewhere udp-reconnected udp-uring udp-uring-connected",
    ),
    (
        "UDPLITE",
        "udplite udplite-connected udplite-sendmmsg udplite-large udplite-uring-connected",
    ),
    (
        "PING",
        "ping ping-connected ping-sendmmsg ping-large ping-splice ping-elsewhere ping-reconnected \
         ping-uring ping-uring-connected",
    ),
    (
        "RAW",
        "raw-icmp raw-icmp-connected raw-icmp-uring raw-udp raw-udp-connected raw-udp-sendmmsg \
         raw-udp-large raw-tcp raw-header raw-header-connected",
    ),
    ("RAW-253", "raw-253 raw-253-connected raw-253-large"),
    // One of each kind.
    (
        "SOME",
        "tcp tcp-fastopen mptcp udp udp-connected udp-uring udplite ping",
    ),
    (
        "SOME-MAPPED",
        "tcp tcp-fastopen mptcp udp udp-connected udp-uring udplite",
    ),
    (
        "SOME-UDP",
        "udp udp-connected udp-sendmmsg udp-uring udplite",
    ),
    ("SOME-TCP", "tcp tcp-fastopen mptcp"),
    ("V4", "127.0.0.1 192.0.2.10"),
    ("V6", "::1 2001:db8:1::10"),
    ("SERVERS", "198.51.100.7 2001:db8:2::7"),
    // Root's raw sockets: in a fence without them, in one with them, and in somebody else's hands.
    ("RAW-USERS", "root root-raw root-made"),
    ("RAW-ALLOWED", "root-raw root-made"),
];

/// Every way there is, to loopback and to the LAN address.
pub(crate) const WAYS: &str = "
nobody      | TCP UDP UDPLITE PING   | V4 V6                        |                 | arrives
";

/// The plainest of them, made by a program that shares no code with qfence.
pub(crate) const INDEPENDENT: &str = "
python      | tcp udp udp-connected  | V4 V6                        |                 | arrives
python      | tcp udp udp-connected  | ::ffff:127.0.0.1             |                 | arrives
python      | tcp udp udp-connected  | ::ffff:192.0.2.10            |                 | arrives
python      | tcp udp ping           | fe80::10%eth0 203.0.113.5    |                 | arrives
python      | ping                   | V4 V6                        |                 | arrives
python      | udp                    | 192.0.2.255                  |                 | arrives
";

/// The same with root's privileges, and with sockets that root made for another.
pub(crate) const ROOT: &str = "
root        | TCP UDP UDPLITE PING   | 127.0.0.1 2001:db8:1::10     |                 | arrives
root-made   | TCP UDP UDPLITE PING   | 192.0.2.10 ::1               |                 | arrives
";

/// Raw sockets, whether or not they may be made.
pub(crate) const RAW: &str = "
RAW-USERS   | RAW                    | V4 V6                        |                 | arrives
RAW-USERS   | RAW-253                | V4 V6                        |                 | lo
";

/// What spells a host's address otherwise: v4-mapped, an IPv4 address on an IPv6 socket, one of no
/// family, and the host's other addresses.
pub(crate) const SPELLINGS: &str = "
nobody      | TCP UDP                | ::ffff:127.0.0.1             |                 | arrives
nobody      | TCP UDP UDPLITE        | ::ffff:192.0.2.10            |                 | arrives
nobody      | UDP udplite            | V4                           | +on-v6          | arrives
nobody      | udp udp-more udp-large | V4                           | +unspec         | arrives
nobody      | SOME                   | 0.0.0.0 127.9.9.9            |                 | arrives
nobody      | SOME-MAPPED            | ::                           |                 | arrives
nobody      | SOME                   | 203.0.113.5 2001:db8:3::5    |                 | arrives
nobody      | SOME                   | fe80::10%eth0                |                 | arrives
nobody      | SOME-MAPPED            | ::ffff:0.0.0.0               |                 | arrives
nobody      | SOME-MAPPED            | ::ffff:203.0.113.5           |                 | arrives
";

/// A socket bound to a device or told to use one, by every means there is, and one with a source
/// address of its choice. What is bound to another device than lo gets no answer, and neither does
/// what goes to an address that is nobody's. IPv6 has no route to such an address through lo.
pub(crate) const DEVICES: &str = "
nobody      | SOME                   | V4 ::1                       | +dev=lo         | arrives
nobody      | SOME-UDP               | 198.51.100.7 8.8.8.8         | +dev=lo         | arrives
nobody      | SOME-TCP ping          | 198.51.100.7 8.8.8.8         | +dev=lo         | lo
nobody      | SOME-UDP               | ::ffff:198.51.100.7          | +dev=lo         | arrives
nobody      | SOME-TCP               | ::ffff:198.51.100.7          | +dev=lo         | lo
nobody      | SOME-UDP udp-gso       | 198.51.100.7 192.0.2.10      | +unicast-if=lo  | arrives
nobody      | ping                   | 198.51.100.7 192.0.2.10      | +unicast-if=lo  | lo
nobody      | SOME-UDP ping          | ::1                          | +unicast-if=lo  | arrives
nobody      | udp udp-more udplite   | 198.51.100.7 127.0.0.1       | +pktinfo=lo     | arrives
nobody      | ping                   | 198.51.100.7 127.0.0.1       | +pktinfo=lo     | lo
nobody      | udp udp-more ping      | ::1                          | +pktinfo=lo     | arrives
nobody      | udp udplite            | 192.0.2.10 2001:db8:1::10    | +dev=eth0       | arrives
nobody      | tcp mptcp ping         | 192.0.2.10 2001:db8:1::10    | +dev=eth0       | lo
nobody      | udp udplite ping       | 192.0.2.10                   | +pktinfo=eth0   | arrives
nobody      | udp udplite ping       | 203.0.113.5                  | +unicast-if=br0 | arrives
nobody      | tcp udp ping           | 192.0.2.10                   | +src=127.0.0.1  | arrives
nobody      | tcp udp ping           | 2001:db8:1::10               | +src=::1        | arrives
RAW-ALLOWED | raw-udp                | 198.51.100.7                 | +dev=lo+src=192.0.2.10 | arrives
RAW-ALLOWED | raw-icmp               | 198.51.100.7                 | +dev=lo+src=192.0.2.10 | lo
";

/// Addresses that are the host's by its routes alone: AnyIP, that is a local route to a prefix
/// (198.18.7.0/24); a unicast route through lo (…99), which IPv6 does not have; a rule that has another
/// table looked up, with a local route there (…98). By IPv4 the host takes in what comes by the last
/// two, and answers only from addresses of its own.
pub(crate) const ROUTES: &str = "
nobody      | SOME                   | 198.18.7.77 2001:db8:a::77   |                 | arrives
nobody      | SOME-MAPPED            | ::ffff:198.18.7.77           |                 | arrives
nobody      | SOME-UDP               | 198.51.100.99 198.51.100.98  |                 | arrives
nobody      | SOME-TCP ping          | 198.51.100.99 198.51.100.98  |                 | lo
nobody      | SOME-UDP               | ::ffff:198.51.100.99         |                 | arrives
nobody      | SOME-TCP               | ::ffff:198.51.100.99         |                 | lo
nobody      | SOME-UDP               | ::ffff:198.51.100.98         |                 | arrives
nobody      | SOME-TCP               | ::ffff:198.51.100.98         |                 | lo
nobody      | SOME udp-sendmmsg      | 2001:db8:2::98               |                 | arrives
RAW-ALLOWED | raw-udp                | 198.51.100.98 198.51.100.99  | +src=192.0.2.10 | arrives
RAW-ALLOWED | raw-icmp raw-tcp       | 198.51.100.98 198.51.100.99  | +src=192.0.2.10 | lo
";

/// Addresses that a NAT rule for outgoing packets turns into the host's: to loopback (…50), to the
/// LAN address (…51), and to that of the packet's own device (`redirect`, …52).
pub(crate) const NAT: &str = "
nobody      | SOME udp-gso           | 198.51.100.50                |                 | arrives
nobody      | SOME udp-gso           | 198.51.100.51                |                 | arrives
nobody      | SOME udp-gso           | 198.51.100.52                |                 | arrives
nobody      | SOME udp-gso           | 2001:db8:2::50               |                 | arrives
nobody      | SOME udp-gso           | 2001:db8:2::51               |                 | arrives
nobody      | SOME udp-gso           | 2001:db8:2::52               |                 | arrives
nobody      | SOME-MAPPED            | ::ffff:198.51.100.50         |                 | arrives
nobody      | SOME-MAPPED            | ::ffff:198.51.100.51         |                 | arrives
RAW-ALLOWED | raw-icmp raw-udp       | 198.51.100.50 198.51.100.51  | +src=192.0.2.10 | arrives
";

/// Every form of broadcast.
pub(crate) const BROADCAST: &str = "
nobody      | SOME-UDP udp-gso       | 255.255.255.255              |                 | arrives
nobody      | SOME-UDP udp-gso       | 192.0.2.255 203.0.113.255    |                 | arrives
nobody      | SOME-UDP udp-gso ping  | 127.255.255.255              |                 | arrives
nobody      | SOME-UDP               | ::ffff:255.255.255.255       |                 | arrives
nobody      | SOME-UDP               | ::ffff:192.0.2.255           |                 | arrives
nobody      | udp udplite ping       | 255.255.255.255              | +dev=lo         | arrives
nobody      | udp udplite            | 255.255.255.255              | +dev=br0        | arrives
nobody      | udp udplite            | 255.255.255.255              | +dev=eth0       | arrives
nobody      | udp                    | 255.255.255.255              | +pktinfo=br0    | arrives
nobody      | udp ping               | 255.255.255.255              | +unicast-if=lo  | arrives
";

/// Multicast, to groups with members on eth0 (…3), br0 (…4) and lo (…5), and to all nodes.
pub(crate) const MULTICAST: &str = "
nobody      | SOME-UDP udp-gso       | 239.1.2.3                    |                 | arrives
nobody      | SOME-UDP               | 239.1.2.4                    | +dev=br0        | arrives
nobody      | SOME-UDP               | 239.1.2.4                    | +multicast-if=br0 | arrives
nobody      | SOME-UDP               | 239.1.2.5                    | +dev=lo         | arrives
nobody      | SOME-UDP               | 239.1.2.5                    | +multicast-if=lo | arrives
nobody      | SOME-UDP udp-gso       | ff02::1:3%eth0 ff02::1:4%br0 |                 | arrives
nobody      | SOME-UDP udp-gso       | ff02::1:5%lo ff01::1:5%lo    |                 | arrives
nobody      | SOME-UDP               | ff05::1:4 ff0e::1:4          | +multicast-if=br0 | arrives
nobody      | SOME-UDP               | ::ffff:239.1.2.3             |                 | arrives
nobody      | SOME-UDP               | ::ffff:239.1.2.5             | +multicast-if=lo | arrives
nobody      | ping ping-uring        | ff02::1%eth0 ff02::1%br0     |                 | arrives
nobody      | ping ping-uring        | ff02::1%lo                   |                 | lo
RAW-ALLOWED | raw-udp                | ff02::1:3%eth0               | +src=fe80::10   | arrives
";

/// What only a socket with SO_BROADCAST can send, for which nothing but UDP gets it: of an IPv4 packet
/// to all, a copy goes to the host before the packet layer sees it.
pub(crate) const BROADCAST_OPTION: &str = "
nobody      | ping ping-uring        | 255.255.255.255              |                 | arrives
nobody      | ping                   | 192.0.2.255 203.0.113.255    |                 | arrives
nobody      | ping                   | 255.255.255.255              | +dev=br0        | arrives
nobody      | ping                   | 255.255.255.255              | +dev=eth0       | arrives
nobody      | ping                   | 255.255.255.255              | +pktinfo=br0    | arrives
RAW-ALLOWED | raw-udp                | 255.255.255.255 192.0.2.255  | +src=192.0.2.10 | arrives
RAW-ALLOWED | raw-icmp               | 255.255.255.255              | +src=192.0.2.10 | arrives
";

/// The same copies of multicast, which takes no option: no socket owns them, and so no program on a
/// cgroup sees them (`ip_mc_output` in net/ipv4/ip_output.c). These come to the host, whose answers
/// do not come back; the README says so.
pub(crate) const COPIES: &str = "
nobody      | ping ping-uring        | 224.0.0.1                    |                 | arrives
nobody      | ping                   | 239.1.2.4                    | +multicast-if=br0 | arrives
RAW-ALLOWED | raw-udp                | 239.1.2.3                    | +src=192.0.2.10 | arrives
RAW-ALLOWED | raw-icmp               | 224.0.0.1                    | +src=192.0.2.10 | arrives
";

/// Source routes, with the host as the first stop on the way to somewhere else.
pub(crate) const SOURCE_ROUTES: &str = "
root        | tcp udp udp-sendmmsg   | 198.51.100.7                 | +lsrr=192.0.2.10 | lo
root        | udp-connected ping     | 198.51.100.7                 | +lsrr=192.0.2.10 | lo
root        | tcp udp ping           | 198.51.100.7                 | +lsrr=127.0.0.1 | lo
nobody      | tcp udp udp-sendmmsg   | 2001:db8:2::7                | +srh=2001:db8:1::10 | lo
nobody      | udp-connected          | 2001:db8:2::7                | +srh=2001:db8:1::10 | lo
nobody      | tcp udp                | 2001:db8:2::7                | +srh=::1        | lo
RAW-ALLOWED | raw-icmp               | 198.51.100.7                 | +lsrr=192.0.2.10 | lo
RAW-ALLOWED | raw-icmp               | 2001:db8:2::7                | +srh=2001:db8:1::10 | lo
";

/// From another namespace, joined to the host by a wire: to the host's end of it, to what is behind
/// that, and to all on the wire.
pub(crate) const ANNEX: &str = "
annex       | SOME udp-sendmmsg      | 10.9.0.1 2001:db8:9::1       |                 | arrives
annex       | udp-gso udp-large      | 10.9.0.1 2001:db8:9::1       |                 | arrives
annex       | SOME                   | 192.0.2.10 2001:db8:1::10    |                 | arrives
annex       | SOME                   | fe80::9%wire0                |                 | arrives
annex       | SOME-MAPPED            | ::ffff:10.9.0.1              |                 | arrives
annex       | SOME-UDP ping          | 10.9.0.255 255.255.255.255   |                 | arrives
annex       | SOME-UDP               | 239.1.2.6 ff02::1:6%wire0    |                 | arrives
annex       | ping                   | 224.0.0.1 ff02::1%wire0      |                 | arrives
annex-raw   | raw-icmp raw-udp raw-header | 10.9.0.1 192.0.2.10     | +src=10.9.0.2   | arrives
annex-raw   | raw-icmp raw-udp raw-header | 2001:db8:9::1           | +src=2001:db8:9::2 | arrives
annex-raw   | raw-253                | 10.9.0.1 2001:db8:9::1       |                 | wire1
";

/// What must work: the same ways to a server on the internet, and to a neighbour on the LAN.
pub(crate) const INTERNET: &str = "
nobody      | TCP UDP PING           | SERVERS                      |                 | arrives
nobody      | TCP UDP                | ::ffff:198.51.100.7          |                 | arrives
nobody      | tcp udp ping           | SERVERS                      | +dev=eth0       | arrives
nobody      | udp ping               | SERVERS                      | +pktinfo=eth0   | arrives
nobody      | udp ping               | SERVERS                      | +unicast-if=eth0 | arrives
nobody      | tcp mptcp udp ping     | 192.0.2.1 2001:db8:1::1      |                 | arrives
python      | tcp udp udp-connected ping | SERVERS                  |                 | arrives
root        | tcp mptcp udp ping     | SERVERS                      |                 | arrives
RAW-ALLOWED | UDPLITE                | SERVERS                      |                 | arrives
RAW-ALLOWED | raw-icmp raw-udp raw-tcp raw-header | 198.51.100.7    | +src=192.0.2.10 | arrives
RAW-ALLOWED | raw-icmp raw-udp raw-tcp raw-header | 2001:db8:2::7   | +src=2001:db8:1::10 | arrives
annex       | tcp mptcp udp udp-large ping | SERVERS                |                 | arrives
";

/// All sections in which nothing may get through.
pub(crate) const REFUSED: [&str; 13] = [
    WAYS,
    INDEPENDENT,
    ROOT,
    RAW,
    SPELLINGS,
    DEVICES,
    ROUTES,
    NAT,
    BROADCAST,
    MULTICAST,
    BROADCAST_OPTION,
    SOURCE_ROUTES,
    ANNEX,
];

//! The clients, and the configurations in which they look names up.

/// A program that looks a name up and fetches a page from its addresses.
#[derive(Debug)]
pub(super) struct Client {
    /// For messages.
    pub(super) name: &'static str,
    /// A line for the shell, in which words in capitals are replaced: `NAME`, `PORT`, `TYPE` (`A` or `AAAA`), `DIRECTORY`
    /// (of the compiled clients) and `DOCKER` (its path).
    pub(super) line: &'static str,
    /// Which resolv.conf it is tried with.
    pub(super) configurations: Configurations,
}

/// A choice of [`RESOLV_CONFS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Configurations {
    /// The first: the client shares its resolver with another one, or does not read the file.
    First,
    /// Those without options.
    Nameservers,
    /// Those without options and without a scope. The musl of Debian 12 asks on an unconnected socket, whose queries
    /// to a scoped address cannot be led (docs/kernel.md). Its c-ares does not know scopes.
    Unscoped,
    /// All.
    All,
}

impl Configurations {
    /// Whether a resolv.conf is one of them.
    pub(super) fn have(self, resolv_conf: &str) -> bool {
        let has_options = resolv_conf.contains("options");
        match self {
            Self::First => RESOLV_CONFS[0] == resolv_conf,
            Self::Nameservers => !has_options,
            Self::Unscoped => !has_options && !resolv_conf.contains('%'),
            Self::All => true,
        }
    }
}

const fn client(name: &'static str, configurations: Configurations, line: &'static str) -> Client {
    Client {
        name,
        line,
        configurations,
    }
}

pub(super) const GLIBC: Client = client("glibc", Configurations::All, "DIRECTORY/glibc PORT NAME");
pub(super) const MUSL: Client =
    client("musl", Configurations::Unscoped, "DIRECTORY/musl PORT NAME");
pub(super) const C_ARES: Client = client(
    "c-ares",
    Configurations::Unscoped,
    "DIRECTORY/cares PORT NAME",
);
/// A program in Go that fetches a page, by Go's own resolver.
pub(super) const GO: Client = client(
    "Go",
    Configurations::All,
    "GODEBUG=netdns=go DOCKER --host tcp://NAME:PORT version",
);

/// The clients.
pub(super) const CLIENTS: &[Client] = &[
    GLIBC,
    MUSL,
    C_ARES,
    GO,
    client(
        "dig",
        Configurations::Nameservers,
        "a=$(dig +short NAME TYPE) && test \"$a\" && DIRECTORY/glibc PORT $a",
    ),
    client(
        "busybox nslookup",
        Configurations::Nameservers,
        "a=$(busybox nslookup -type=TYPE NAME | sed -n '/^Name:/,$s/^Address: *//p') && test \"$a\" && \
         DIRECTORY/glibc PORT $a",
    ),
    client(
        "busybox wget",
        Configurations::First,
        "busybox wget -q -O - http://NAME:PORT/",
    ),
    client(
        "curl",
        Configurations::First,
        "curl --silent --show-error http://NAME:PORT/",
    ),
    client(
        "python",
        Configurations::First,
        "/usr/bin/python3 -c 'from urllib.request import urlopen; print(urlopen(\"http://NAME:PORT/\").read())'",
    ),
    client(
        "dig +tcp",
        Configurations::First,
        "a=$(dig +tcp +short NAME TYPE) && test \"$a\" && DIRECTORY/glibc PORT $a",
    ),
    client(
        "dig -b",
        Configurations::First,
        "a=$(dig -b 192.0.2.10 +short NAME TYPE) && test \"$a\" && DIRECTORY/glibc PORT $a",
    ),
    client(
        "dig @IPv4",
        Configurations::First,
        "a=$(dig @198.51.100.53 +short NAME TYPE) && test \"$a\" && DIRECTORY/glibc PORT $a",
    ),
    client(
        "dig @IPv6",
        Configurations::First,
        "a=$(dig @2001:db8:2::53 +short NAME TYPE) && test \"$a\" && DIRECTORY/glibc PORT $a",
    ),
    client(
        "dig @IPv6 +tcp",
        Configurations::First,
        "a=$(dig @2001:db8:2::53 +tcp +short NAME TYPE) && test \"$a\" && DIRECTORY/glibc PORT $a",
    ),
];

/// Contents of resolv.conf. The nameservers are those of `place.rs`.
pub(super) const RESOLV_CONFS: &[&str] = &[
    "nameserver 127.0.0.53\n",
    "nameserver 198.51.100.53\nnameserver 127.0.0.53\n",
    "nameserver 2001:db8:2::53\n",
    "nameserver fe80::53%eth0\n",
    "nameserver 198.51.100.53\nnameserver 2001:db8:2::53\n",
    "nameserver 127.0.0.53\noptions edns0 trust-ad\n",
    "nameserver 127.0.0.53\noptions single-request\n",
    "nameserver 127.0.0.53\noptions single-request-reopen\n",
    "nameserver 127.0.0.53\noptions use-vc\n",
    "nameserver 127.0.0.53\nnameserver 198.51.100.53\noptions rotate\n",
];

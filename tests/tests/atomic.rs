//! A policy is changed whole: under load no call is ever judged by half of one and half of another.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::IpAddr,
    ops::Range,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use qfence_common::{Action, LookupPath, Node, Nodes, Protocol, Query, Verdict, decide};
use qfence_user::{
    compile::{Compiled, compile},
    kernel::{Maps, pins::Pins},
    policy::Numbered,
    stored_policy::{PolicyFile, StoredPolicy},
};
use tests::{
    fence::{Fence, Refusal},
    probe::{self, CONNECTED, Flood},
    shell::Shell,
    workspace,
    world::World,
};

/// How often the policy is changed at least.
const CHANGES: u32 = 1000;
/// How long the load lasts before one looks whether that was enough.
const SPELL: Duration = Duration::from_secs(4);
const REFUSED: &str = "ECONNREFUSED";
const PORT: u16 = 1500;

/// What the two versions say of a destination at [`PORT`]: rules at each and nothing but rules with
/// ports, so that each has a tree.
const FIRST: [(&str, &str); 4] = [
    ("both-deny", "deny 1400-1600, allow"),
    ("both-allow", "allow 1450-1550, deny"),
    ("first-allows", "allow 1000-1999, deny"),
    ("second-allows", "deny 1000-1999, allow"),
];
const SECOND: [(&str, &str); 4] = [
    ("both-deny", "deny 1-1999, allow"),
    ("both-allow", "allow 1499-1501, deny"),
    ("first-allows", "deny 1500-1500, allow"),
    ("second-allows", "allow 1200-1800, deny"),
];

/// Two destinations of a kind in each family: refused ones beside such as are not.
fn destinations(kind: &str) -> [IpAddr; 4] {
    let last = match kind {
        "both-deny" => 2,
        "both-allow" => 3,
        "first-allows" => 4,
        _ => 5,
    };
    let v6 = |last: u16| IpAddr::from([0x2001, 0xdb8, 2, 0, 0, 0, 0, last]);
    [
        IpAddr::from([198, 51, 100, last]),
        IpAddr::from([198, 51, 100, last + 8]),
        v6(last.into()),
        v6(u16::from(last) + 8),
    ]
}

/// The flags for one version, `--allow` and `--deny` and their values.
fn flags(version: &[(&str, &str)]) -> Vec<String> {
    let mut flags = Vec::new();
    for (kind, rules) in version {
        for address in destinations(kind) {
            let address = match address {
                IpAddr::V4(v4) => v4.to_string(),
                IpAddr::V6(v6) => format!("[{v6}]"),
            };
            for rule in rules.split(", ") {
                let (action, ports) = rule.split_once(' ').unwrap_or((rule, "1-65535"));
                flags.push(format!("--{action}"));
                flags.push(format!("udp:{address}:{ports}"));
            }
        }
    }
    flags
}

/// The two versions, of the rules that the fence was given: their numbers are those in its log.
struct Versions {
    rules: Vec<Numbered>,
    compiled: [Compiled; 2],
}

impl Versions {
    /// `first` is how many rules are the first version's alone, `second` how many the second's.
    fn new(stored: &StoredPolicy, first: usize, second: usize) -> Result<Self> {
        let rules = stored.policy.rules();
        let of = |from: usize, to: usize| {
            let mut version = rules[from..to].to_vec();
            version.extend_from_slice(&rules[first + second..]);
            compile(&version, &stored.sets, false)
        };
        let compiled = [of(0, first)?, of(first, first + second)?];
        Ok(Self { rules, compiled })
    }

    fn decide(&self, version: usize, address: IpAddr) -> Verdict {
        self.compiled[version].decide(LookupPath::Address, Protocol::UDP, address, PORT)
    }

    /// What would be decided by a version of whose nodes some are those of the other.
    fn mixed(&self, version: usize, others: Range<usize>, address: IpAddr) -> Action {
        let mixed = Mixed {
            own: &self.compiled[version],
            other: &self.compiled[1 - version],
            others,
        };
        let octets = match address {
            IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
            IpAddr::V6(v6) => v6.octets(),
        };
        let query = Query::new(LookupPath::Address, octets, Protocol::UDP, PORT);
        decide(&mixed, &query).action()
    }

    /// The rules by which either version refuses a destination.
    fn refusals(&self, address: IpAddr) -> BTreeSet<String> {
        let decisions = [0, 1].map(|version| self.decide(version, address));
        let denied = decisions.iter().filter(|of| of.action() == Action::Deny);
        let rule = |of: &Verdict| {
            let rule = self.rules.iter().find(|rule| rule.number == of.rule());
            rule.map(|numbered| numbered.rule.to_string())
        };
        denied.filter_map(rule).collect()
    }
}

/// Some of one policy and some of another.
struct Mixed<'a> {
    own: &'a Compiled,
    other: &'a Compiled,
    others: Range<usize>,
}

impl Nodes for Mixed<'_> {
    fn read(&self, index: usize) -> Option<Node> {
        let part = if self.others.contains(&index) {
            self.other
        } else {
            self.own
        };
        part.read(index)
    }
}

#[test]
fn no_call_is_judged_by_two_policies() -> Result<()> {
    use Action::{Allow, Deny};

    let world = World::new()?;
    // Ports before all others, in one version alone: the nodes of the versions lie elsewhere.
    let mut first = [
        "--allow",
        "udp:198.51.100.1:80",
        "--deny",
        "udp:198.51.100.1:1-65535",
    ]
    .map(str::to_owned)
    .to_vec();
    first.extend(flags(&FIRST));
    let second = flags(&SECOND);
    let fence = Fence::new("atomic")?.with(&["--user", "nobody"]);
    let options: Vec<&str> = first.iter().chain(&second).map(String::as_str).collect();
    let fence = fence.with(&options);
    let mut inside = Shell::start(fence.command(&world.host, "sh"))?;

    let pins = Pins::new(Path::new("/sys/fs/bpf")).directory(fence.name());
    let stored = PolicyFile::new(Path::new("/run/qfence"), fence.name(), &pins).read()?;
    let stored = stored.context("the fence has a policy")?;
    let versions = Versions::new(&stored, first.len() / 2, second.len() / 2)?;
    for (kind, expected) in [
        ("both-deny", [Deny, Deny]),
        ("both-allow", [Allow, Allow]),
        ("first-allows", [Allow, Deny]),
        ("second-allows", [Deny, Allow]),
    ] {
        for address in destinations(kind) {
            let decided = [0, 1].map(|version| versions.decide(version, address).action());
            assert_eq!(decided, expected, "{kind}: {address}");
        }
    }
    // The control: by some of one and some of the other, all of these would go wrong.
    for version in [0, 1] {
        for (kind, right) in [("both-deny", Deny), ("both-allow", Allow)] {
            let windows = (0..200).flat_map(|from| (from..200).map(move |to| from..to));
            let goes_wrong = windows.into_iter().any(|others| {
                let mixed = |address| versions.mixed(version, others.clone(), address);
                destinations(kind)
                    .into_iter()
                    .any(|address| mixed(address) != right)
            });
            assert!(goes_wrong, "{kind} from version {version}");
        }
    }

    let dir = tempfile::tempdir()?;
    workspace::make_readable(dir.path())?;
    let file = dir.path().join("destinations");
    let all: Vec<_> = FIRST
        .iter()
        .flat_map(|(kind, _)| destinations(kind))
        .collect();
    let lines: Vec<_> = all
        .iter()
        .map(|address| format!("udp/{address}/{PORT}\n"))
        .collect();
    fs::write(&file, lines.concat())?;
    workspace::make_readable(&file)?;
    let script = format!(
        "{} --for-ms {} --connect-each {}",
        probe::program()?.display(),
        SPELL.as_millis(),
        file.display()
    );

    let mut maps = Maps::open(&pins)?;
    let mut changes = 0;
    let mut seen: BTreeMap<IpAddr, [u64; 2]> = BTreeMap::new();
    while changes < CHANGES {
        maps.publish(&versions.compiled[0])?;
        inside.tell(&script)?;
        let end = Instant::now() + SPELL;
        while Instant::now() < end {
            for compiled in &versions.compiled {
                maps.publish(compiled)?;
                changes += 1;
            }
        }
        let floods: Vec<Flood> = probe::read_lines(&inside.ask("true")?.join("\n"))?;
        for (address, flood) in all.iter().zip(floods) {
            let counts = [CONNECTED, REFUSED].map(|ending| flood.ended(ending));
            assert_eq!(counts.iter().sum::<u64>(), flood.count, "{flood:?}");
            let sum = seen.entry(*address).or_default();
            *sum = [sum[0] + counts[0], sum[1] + counts[1]];
        }
    }

    let only = |kind: &str| destinations(kind).map(|address| seen[&address].map(|count| count > 0));
    assert_eq!(only("both-deny"), [[false, true]; 4], "{seen:?}");
    assert_eq!(only("both-allow"), [[true, false]; 4], "{seen:?}");
    // Both versions were in force, for both families.
    for kind in ["first-allows", "second-allows"] {
        assert_eq!(only(kind), [[true, true]; 4], "{seen:?}");
    }
    let mut logged = BTreeSet::new();
    // Beside refusals it says how many were lost: there are more than it can take.
    let log = fs::read_to_string(fence.log())?;
    let whole = log.rfind('\n').map_or("", |end| &log[..end]);
    for line in whole.lines().filter(|line| line.contains("verdict")) {
        let refusal: Refusal = serde_json::from_str(line).with_context(|| line.to_owned())?;
        let rules = versions.refusals(refusal.destination.parse()?);
        assert!(
            rules.contains(&refusal.rule),
            "{refusal:?}: not of {rules:?}"
        );
        logged.insert(refusal.rule);
    }
    assert!(logged.len() > 8, "{logged:?}");
    Ok(())
}

//! The kernel decides as the rules one by one do: random policies, put in force one after the other in
//! a fence that stands, and calls to destinations at their edges. Some of these are addresses of names.

#[path = "../../../qfence-user/tests/parity/naive.rs"]
#[expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "shared with tests for which that is allowed"
)]
mod naive;
#[path = "../../../qfence-user/tests/parity/pool.rs"]
#[expect(
    clippy::unwrap_used,
    reason = "shared with tests for which that is allowed"
)]
mod pool;
#[path = "../../../qfence-user/tests/parity/scene.rs"]
#[expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "shared with tests for which that is allowed"
)]
mod scene;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, iter,
    net::{IpAddr, Ipv4Addr},
    path::Path,
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow};
use naive::{Host, NaiveMatch, NaiveProtocol, NaiveRule, Target, To, first_for_own, first_match};
use proptest::{
    strategy::{Strategy, ValueTree as _},
    test_runner::TestRunner,
};
use qfence_common::{Action, LookupPath, Nodes as _, Protocol, tree::FLAGS, verdict::MANY};
use qfence_user::{
    compile::{compile, named::Lookups},
    kernel::{Maps, pins::Pins, resolved::Addresses},
    policy::Numbered,
};
use scene::{Scene, action, choices, grants, scene};
use tests::{
    fence::Fence,
    namespace::NOBODY,
    probe::{self, CONNECTED, Flood},
    shell::Shell,
    workspace,
    world::World,
};

const POLICIES: usize = 60;
const DESTINATIONS: usize = 120;
/// For how long the addresses of names are in force: longer than the test takes.
const LASTS: Duration = Duration::from_hours(1);
/// Each is spelled in one way: of IPv4 destinations half are v4-mapped.
const SPELLINGS: [&str; 3] = ["IPv4", "v4-mapped", "IPv6"];
/// Mostly UDP, for which no packet is sent.
const PROTOCOLS: [u32; 4] = [17, 17, 17, 6];
/// What a refusal fails with, and nothing else here: sockets may broadcast, and there is no route of
/// type `prohibit`.
const REFUSED: &str = "EACCES";

/// One call, and how its destination is spelled.
struct Call {
    target: Target,
    spelling: usize,
}

impl Call {
    fn line(&self) -> String {
        let Target { address, port, .. } = self.target;
        let protocol = if self.target.protocol == 6 {
            "tcp"
        } else {
            "udp"
        };
        match address {
            IpAddr::V4(v4) if SPELLINGS[self.spelling] == "v4-mapped" => {
                format!("{protocol}/{}/{port}", v4.to_ipv6_mapped())
            }
            address => format!("{protocol}/{address}/{port}"),
        }
    }
}

fn sample<S: Strategy>(runner: &mut TestRunner, strategy: &S) -> Result<S::Value> {
    let tree = strategy.new_tree(runner);
    Ok(tree.map_err(|reason| anyhow!("{reason}"))?.current())
}

fn calls(runner: &mut TestRunner, scene: &Scene) -> Result<Vec<Call>> {
    let choices = sample(runner, &choices(DESTINATIONS, &PROTOCOLS))?;
    let (addresses, ports) = (scene.addresses(), scene.ports());
    let call = |(index, choice)| {
        let target = Target {
            loopback: false,
            ..scene.target(choice, &addresses, &ports)
        };
        let spelling = match target.address {
            IpAddr::V4(_) => index % 2,
            IpAddr::V6(_) => 2,
        };
        Call { target, spelling }
    };
    // Under a policy with names, queries are led to the resolver.
    let is_query = |call: &Call| has_names(&scene.rules) && call.target.port == 53;
    // A refused connect() of UDP by which a look-up asks for its source succeeds, and leads nowhere: see `unspecified.rs`.
    let is_judged = |call: &Call| {
        let Target { address, port, .. } = call.target;
        Protocol(call.target.protocol) != Protocol::UDP || !(address.is_unspecified() || port == 0)
    };
    let calls = choices.iter().enumerate().map(call);
    Ok(calls
        .filter(|call| is_judged(call) && !is_query(call))
        .collect())
}

/// Whether a policy has a rule by name. Then queries are led to the resolver.
fn has_names(rules: &[NaiveRule]) -> bool {
    let mut matches = rules.iter().flat_map(|rule| &rule.matches);
    matches.any(|of| matches!(of.to, To::Name(_)))
}

/// Puts the addresses of names in force, and nothing else. Of the calls to an address, the first one decides which names it
/// has.
fn resolve(calls: &mut [Call], rules: &[Numbered], resolved: &mut Addresses) -> Result<usize> {
    resolved.retain(|_, _| false)?;
    let (lookups, mut known) = (Lookups::new(rules), BTreeMap::new());
    for Call { target, .. } in calls {
        if let Some(names) = known.get(&target.address) {
            target.names = *names;
            continue;
        }
        let grants = grants(&lookups, target);
        known.insert(target.address, target.names);
        if !grants.is_empty() {
            resolved.put(target.address, &grants, LASTS)?;
        }
    }
    Ok(resolved.list()?.len())
}

fn endings(shell: &mut Shell, script: &str) -> Result<Vec<String>> {
    let floods: Vec<Flood> = probe::read_lines(&shell.ask(script)?.join("\n"))?;
    let one = |flood: Flood| {
        let mut endings = flood.endings.into_keys();
        endings.next().context("an ending")
    };
    floods.into_iter().map(one).collect()
}

/// A policy like the default one, on a host that has nothing but what every host has: it lets no broadcast through, and all
/// that the host's own networks are.
fn without_broadcasts() -> Scene {
    let rule = |allow, to| NaiveRule {
        allow,
        matches: vec![NaiveMatch {
            protocol: NaiveProtocol::Any,
            to: To::Set(to),
            ports: Vec::new(),
        }],
    };
    Scene {
        rules: vec![rule(false, "host"), rule(true, "any")],
        host: Host::default(),
    }
}

/// Whether an address is an IPv4 one that names many, by what the policy knows.
fn names_many(address: IpAddr, host: &Host) -> bool {
    let IpAddr::V4(v4) = address else {
        return false;
    };
    let mut broadcasts = host.broadcasts.iter();
    v4.is_multicast() || v4.is_broadcast() || broadcasts.any(|net| net.contains(&address))
}

/// Calls by UDP to an IPv4 address.
fn in_both_spellings(address: IpAddr) -> [Call; 2] {
    [0, 1].map(|spelling| Call {
        target: Target {
            address,
            protocol: 17,
            port: 9,
            loopback: false,
            own: false,
            names: 0,
        },
        spelling,
    })
}

/// The addresses that the kernel takes for broadcast ones (`ip_route_output_key_hash_rcu` in net/ipv4/route.c).
fn broadcast_addresses(world: &World) -> Result<BTreeSet<IpAddr>> {
    let routes = world.host_ip("-4 route show table all type broadcast")?;
    let address = |line: &str| line.split_whitespace().nth(1)?.parse().ok();
    let mut all: BTreeSet<IpAddr> = routes.lines().filter_map(address).collect();
    assert!(!all.is_empty(), "{routes}");
    all.insert(Ipv4Addr::BROADCAST.into());
    Ok(all)
}

#[test]
fn the_kernel_decides_as_the_rules_one_by_one() -> Result<()> {
    let world = World::new()?;
    let fence = Fence::new("parity")?.with(&["--user", "nobody", "--deny-with", "denied"]);
    // With a resolver of names, and room for their addresses.
    let fence = fence.with(&["--allow", "example.org"]);
    let mut inside = Shell::start(fence.command(&world.host, "sh"))?;
    let mut outside = Shell::start(world.host.command_as(NOBODY, "sh"))?;
    let pins = Pins::new(Path::new("/sys/fs/bpf")).directory(fence.name());
    let mut maps = Maps::open(&pins)?;
    let mut resolved = Addresses::open(&pins)?;

    let dir = tempfile::tempdir()?;
    workspace::make_readable(dir.path())?;
    let file = dir.path().join("destinations");
    let script = format!(
        "{} --connect-each {}",
        probe::program()?.display(),
        file.display()
    );
    let mut runner = TestRunner::default();
    let mut seen = BTreeMap::new();
    let broadcast_addresses = broadcast_addresses(&world)?;
    let (mut unbroadcast, mut in_force, mut by_names) = (0, 0, 0);
    let random = (0..POLICIES).map(|_| sample(&mut runner, &scene()));
    let mut scenes = random.collect::<Result<Vec<_>>>()?;
    scenes.push(without_broadcasts());
    for scene in scenes {
        let rules = scene.policy().rules();
        let compiled = compile(&rules, &scene.sets(), false)?;
        maps.publish(&compiled)?;
        for rule in &rules {
            maps.forget_hits(rule.number)?;
        }
        let flags = compiled.read(FLAGS).and_then(|node| node.verdict());
        let broadcasts = flags.context("the flags of a policy")?.has(MANY);
        let mut calls = calls(&mut runner, &scene)?;
        calls.extend(
            broadcast_addresses
                .iter()
                .flat_map(|&address| in_both_spellings(address)),
        );
        in_force += resolve(&mut calls, &rules, &mut resolved)?;
        let lets_through = calls.iter().any(|Call { target, .. }| {
            let first = first_match(&scene.rules, &scene.host, target);
            names_many(target.address, &scene.host)
                && first.is_some_and(|first| scene.rules[first].allow)
        });
        assert!(broadcasts || !lets_through, "{scene:?}");
        let lines: Vec<String> = calls.iter().map(|call| call.line() + "\n").collect();
        fs::write(&file, lines.concat())?;
        workspace::make_readable(&file)?;
        let open = endings(&mut outside, &script)?;
        let fenced = endings(&mut inside, &script)?;
        assert_eq!((open.len(), fenced.len()), (calls.len(), calls.len()));

        let mut hits: BTreeMap<u32, u64> = rules.iter().map(|rule| (rule.number, 0)).collect();
        for (call, (open, fenced)) in iter::zip(&calls, iter::zip(&open, &fenced)) {
            let Target { address, port, .. } = call.target;
            let protocol = Protocol(call.target.protocol);
            let line = call.line();
            let first = first_match(&scene.rules, &scene.host, &call.target).context("a rule")?;
            let allows = scene.rules[first].allow;
            let told = || format!("{line} by `{}` of {scene:?}", rules[first].rule);
            let decided = compiled.decide(LookupPath::Address, protocol, address, port);
            let is_by_name = allows && decided.action() == Action::Deny;
            assert!(
                is_by_name || decided.action() == action(allows),
                "{}",
                told()
            );
            by_names += usize::from(is_by_name);
            let for_own = first_for_own(&scene.rules, &scene.host, &call.target);
            let for_own = for_own.map(|first| rules[first].number);
            assert_eq!(decided.self_rule(), for_own, "{}", told());
            assert_ne!(open, REFUSED, "control: {line}");
            match allows {
                false => assert_eq!(fenced, REFUSED, "{}", told()),
                // The packet of a connection may be dropped, and then there is no answer.
                true if protocol == Protocol::TCP => assert_ne!(fenced, REFUSED, "{}", told()),
                // Of a broadcast address of this host's the scene's policy knows nothing. A socket that got no
                // SO_BROADCAST, as the policy lets no broadcast through, cannot be connected there.
                true if !broadcasts && broadcast_addresses.contains(&address) => {
                    assert_eq!((&**fenced, &**open), ("EACCES", CONNECTED), "{}", told());
                    unbroadcast += 1;
                }
                true => assert_eq!(fenced, open, "{}", told()),
            }
            *hits.entry(rules[first].number).or_default() += 1;
            *seen
                .entry((SPELLINGS[call.spelling], allows, open == CONNECTED))
                .or_insert(0) += 1;
        }
        for (rule, expected) in hits {
            assert_eq!(maps.hits(rule)?.calls, expected, "rule {rule} of {scene:?}");
        }
    }
    for spelling in SPELLINGS {
        for allows in [false, true] {
            let count = seen.get(&(spelling, allows, true)).copied().unwrap_or(0);
            assert!(count > 50, "{spelling}, allows {allows}: {seen:?}");
        }
    }
    // Some hundreds: most policies have a rule by name.
    assert!(by_names > 50 && in_force > 50, "{by_names} of {in_force}");
    // By the last policy at least: both networks', spelled in both ways.
    assert!(unbroadcast >= 4, "{unbroadcast}");
    Ok(())
}

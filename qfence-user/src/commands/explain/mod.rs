//! `explain`: shows whether destinations are allowed, and why.

mod table;
mod words;

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use qfence_common::Nodes;
use serde::Serialize;

use self::{table::table, words::split};
use super::{
    named::{found, named_addresses},
    print, print_json, require_root,
};
use crate::{
    base::{console::notify, paths::Paths, printable::printable},
    cli::{Explain, resolve},
    compile::{
        compile,
        explain::{Asked, Explanation, NameExplanation, NamedAddresses, explain, explain_name},
    },
    fence::registry::Fences,
    host::{self, listening::serves_dns, nameservers},
    kernel::Maps,
    policy::{
        grammar::{self, Question},
        hostset::single,
        names::DHCP,
        profile::host_file::HostFile,
    },
};

/// The hint on names, if no fence is asked.
const OF_NAMES: &str = "hint: which addresses a name has is known in a fence alone. Those of this host and of private networks are \
    taken out of its answers (with `exec --names-private`, those in the set lan are not)";

/// A destination in the JSON output.
#[derive(Serialize)]
struct Answer<'a> {
    destination: &'a str,
    #[serde(flatten)]
    explained: Explained,
}

/// What is said of a destination.
#[derive(Serialize)]
#[serde(untagged)]
enum Explained {
    Address(Explanation),
    Name(NameExplanation),
}

/// Runs `explain`.
///
/// # Errors
/// If a destination is invalid, the fence or the profile does not exist, or standard output cannot be written.
pub fn run(options: &Explain, paths: &Paths) -> Result<()> {
    let is_fence = |name: &str| Fences::exists_to_anybody(name, paths);
    let (fence, destinations) = split(options, is_fence)?;
    let queries = destinations
        .iter()
        .map(|text| Ok(grammar::destination(text)?))
        .collect::<Result<Vec<Question>>>()?;
    let (explanations, devices) = match fence {
        Some(name) => of_fence(name, &queries, paths)?,
        None => (of_profile(options, &queries, paths)?, Vec::new()),
    };
    let answers: Vec<_> = destinations
        .iter()
        .zip(explanations)
        .map(|(destination, explained)| Answer {
            destination,
            explained,
        })
        .collect();
    if options.json {
        return print_json(&answers);
    }
    print(&table(&answers))?;
    let addresses: Vec<&Explanation> = answers.iter().filter_map(Answer::of_address).collect();
    for hint in addresses.iter().filter_map(|of| of.hint.as_ref()) {
        notify(format_args!("hint: {hint}"));
    }
    say_named(&addresses, paths);
    say_redirected(&addresses, paths);
    say_devices(&devices);
    let has_name = answers.iter().any(|answer| answer.of_address().is_none());
    if fence.is_none() && has_name {
        notify(OF_NAMES);
    }
    Ok(())
}

/// Prints which of the addresses the administrator's file counts as the host.
fn say_named(explanations: &[&Explanation], paths: &Paths) {
    // `exec` reports a file that is invalid.
    let Ok(file) = HostFile::read(&paths.host_file) else {
        return;
    };
    for explanation in explanations {
        let address = explanation.address;
        let named = single(address);
        if file.host.iter().any(|prefix| prefix.contains(&named)) {
            let path = paths.host_file.display();
            notify(format_args!("hint: {path} counts {address} as the host"));
        }
    }
}

/// Prints which of the addresses are nameservers of the host whose port NAT may redirect.
fn say_redirected(explanations: &[&Explanation], paths: &Paths) {
    let Ok(nameservers) = nameservers::read(&paths.resolv_conf) else {
        return;
    };
    for explanation in explanations {
        let address = explanation.address;
        let is_nameserver = nameservers
            .servers
            .iter()
            .any(|server| server.address == address);
        let is_own = address.is_loopback();
        if is_nameserver && is_own && serves_dns(&paths.proc, address) == Some(false) {
            notify(format_args!(
                "hint: no server listens on port 53 of {address}; if NAT redirects this port to another one, a question \
                 to this port is judged by it, and nothing else to the other port is"
            ));
        }
    }
}

/// Prints which layers judge the guests of the fence's network devices.
fn say_devices(devices: &[String]) {
    if !devices.is_empty() {
        let devices = printable(devices.join(", ").as_bytes());
        notify(format_args!(
            "hint: frames of the guests on {devices} are judged by the layer address. What reaches this host although its \
             frame led elsewhere, as by NAT, is dropped (deny-local-in), and DHCP is let through where this host has an \
             address ({DHCP})"
        ));
    }
}

/// Explains by the maps of a fence: the policy in force in the kernel. The second value has the names of its network
/// devices.
fn of_fence(
    name: &str,
    questions: &[Question],
    paths: &Paths,
) -> Result<(Vec<Explained>, Vec<String>)> {
    require_root()?;
    let fences = Fences::look(paths)?;
    fences.enforced(name)?;
    let nodes = Maps::open(&fences.pins(name))?.in_force()?;
    let stored = fences.policy_file(name).read()?.with_context(|| {
        format!("the fence {name} has no policy yet, because it is still starting")
    })?;
    let rules = stored.policy.rules();
    let asked = Asked {
        rules: &rules,
        sets: &stored.sets,
        nodes: &nodes,
        named: &named_addresses(&fences, name)?,
        struck: &found(&fences, name)?.unwrap_or_default().struck,
        monitors: stored.policy.monitor,
    };
    let explained = questions.iter().map(|of| answer(&asked, of)).collect();
    let described = fences.description(name).map(|found| found.devices);
    let devices = described.into_iter().flatten();
    Ok((explained, devices.map(|device| device.name).collect()))
}

/// Explains by the policy that `exec` would make on this host now.
fn of_profile(options: &Explain, questions: &[Question], paths: &Paths) -> Result<Vec<Explained>> {
    let dns = options.dns.unwrap_or(crate::policy::Dns::Auto);
    let policy = resolve::policy(&options.policy, dns, false, &paths.profiles)?;
    let sets = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the event loop")?
        .block_on(host::sets(paths))?;
    let rules = policy.rules();
    let compiled = compile(&rules, &sets, false)?;
    let asked = Asked {
        rules: &rules,
        sets: &sets,
        nodes: &compiled,
        named: &NamedAddresses::new(),
        struck: &BTreeMap::new(),
        monitors: false,
    };
    Ok(questions.iter().map(|of| answer(&asked, of)).collect())
}

fn answer<N: Nodes>(asked: &Asked<'_, N>, question: &Question) -> Explained {
    match question {
        Question::Address(query) => Explained::Address(explain(asked, query)),
        Question::Name {
            name,
            protocol,
            port,
        } => Explained::Name(explain_name(asked, name, *protocol, *port)),
    }
}

impl Answer<'_> {
    fn of_address(&self) -> Option<&Explanation> {
        match &self.explained {
            Explained::Address(explanation) => Some(explanation),
            Explained::Name(_) => None,
        }
    }
}

//! Hints before the command starts: servers on the host that it is told to use and that the policy refuses, each with the
//! rule that allows it, and programs whose work a server outside of the fence does.

use std::{env, net::IpAddr};

use qfence_common::Protocol;

use super::{managed::Managed, refused::Refused};
use crate::{
    base::console::notify,
    cli::Exec,
    confinement::{Closure, Grants, Strict},
    launch::{destinations, environment::Environment, outside},
    qemu::{clients::Client, guestfwd::Forward},
    supervise::follower::Follower,
};

/// The servers that a QEMU connects to by its options.
#[derive(Clone, Debug, Default)]
pub(super) struct Servers {
    /// For the guest, by `guestfwd`.
    pub(super) forwards: Vec<Forward>,
    /// For itself.
    pub(super) clients: Vec<Client>,
}

/// Reports servers that the policy refuses, although the user has requested them.
pub(super) fn of_servers(servers: &Servers, policy: &Follower) {
    for Forward {
        argument,
        address,
        port,
    } in &servers.forwards
    {
        let refused = refused(policy, Protocol::TCP, *address, *port);
        if let Some(Refused {
            target,
            refusal,
            advice,
        }) = refused
        {
            notify(format_args!(
                "hint: guestfwd to {target} ({argument}) is {refusal}; {advice}; QEMU connects when it starts, and exits \
                 if that fails"
            ));
        }
    }
    for client in &servers.clients {
        let refused = refused(policy, client.protocol, client.address, client.port);
        if let Some(Refused {
            target,
            refusal,
            advice,
        }) = refused
        {
            let argument = &client.argument;
            notify(format_args!(
                "hint: QEMU connects to {target} ({argument}), which is {refusal}; {advice}"
            ));
        }
    }
}

/// Reports servers in the command's variables that the policy refuses.
pub(super) fn of_variables(environment: &Environment, policy: &Follower) {
    let variables = environment.apply(env::vars_os());
    for server in destinations::of(&variables) {
        let refused = refused(policy, Protocol::TCP, server.address, server.port);
        if let Some(Refused {
            target,
            refusal,
            advice,
        }) = refused
        {
            let (names, verb) = match &server.names[..] {
                [one] => (one.clone(), "leads"),
                several => (several.join(", "), "lead"),
            };
            notify(format_args!(
                "hint: {names} {verb} to {target}, which is {refusal}; {advice}"
            ));
        }
    }
}

fn refused(policy: &Follower, protocol: Protocol, address: IpAddr, port: u16) -> Option<Refused> {
    Refused::find(protocol, address, port, |address| {
        policy.refusal(protocol, address, port)
    })
}

/// Reports that a server does the work of the command, and that the fence does not apply to it, if the command can reach
/// this server.
pub(super) fn of_outside(options: &Exec, managed: &Managed, strict: &Strict, grants: &Grants) {
    let has_variable = |name: &str| env::var_os(name).is_some_and(|value| !value.is_empty());
    let Some(found) = outside::of(&options.command, has_variable) else {
        return;
    };
    let is_granted = grants.connect.iter().any(|name| {
        let name = String::from_utf8_lossy(&name.bytes()).into_owned();
        found.sockets.iter().any(|socket| name.contains(socket))
    });
    let is_open = matches!(managed, Managed::Open) && !strict.has(Closure::Sockets);
    if !is_granted && !is_open {
        return;
    }
    let condition = if found.begins {
        "if it runs already, "
    } else {
        ""
    };
    notify(format_args!(
        "warning: {} has its work done by {}, which is not in the fence: {condition}what it starts is not fenced",
        found.program, found.server
    ));
}

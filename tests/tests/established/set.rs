//! `set` ends the connections that it denies, unless it is told to leave them.

use anyhow::Result;
use tests::{
    fence::{Fence, qfence},
    probe,
    run::{Ended, to_end},
    world::{GATEWAY_V4, GATEWAY_V6, HOST_V4, HOST_V6, SERVER_V4, SERVER_V6},
};

use super::{
    nobody,
    scene::{Holder, Scene, TCP, WATCHED, serve, to},
};

fn set(scene: &Scene, fence: &Fence, options: &[&str]) -> Result<Ended> {
    let mut command = scene.world.host.command(qfence()?);
    let ended = to_end({
        command.args(["set", fence.name()]).args(options);
        command
    })?;
    assert_eq!(ended.code(), Some(0), "{options:?}: {ended:?}");
    Ok(ended)
}

/// Connections to the server and to its neighbour, in both families.
fn connections() -> ([String; 2], [String; 2]) {
    (
        [SERVER_V4, SERVER_V6].map(|server| to("tcp", server, WATCHED)),
        [GATEWAY_V4, GATEWAY_V6].map(|gateway| to("tcp", gateway, TCP)),
    )
}

fn deny_server() -> [String; 4] {
    let (v4, v6) = (SERVER_V4.to_string(), SERVER_V6.to_string());
    ["--deny".into(), v4, "--deny".into(), v6]
}

#[test]
fn what_the_new_policy_denies_ends_when_it_is_set() -> Result<()> {
    let scene = Scene::new()?;
    let fence = nobody("set")?;
    let (denied, others) = connections();
    let all = [denied.clone(), others.clone()].concat();
    let mut inside = Holder::start(fence.command(&scene.world.host, "sh"), "", &all)?;
    let ended = set(
        &scene,
        &fence,
        &deny_server().each_ref().map(|word| &**word),
    )?;
    assert_eq!(
        ended.stderr,
        "qfence: ended 2 connections that the new policy denies\n"
    );
    inside.await_ended(&denied, "ECONNABORTED")?;
    scene.await_resets(2)?;
    inside.ensure_stand(&others)
}

#[test]
fn what_stands_can_be_left_alone() -> Result<()> {
    let scene = Scene::new()?;
    let fence = nobody("keep")?;
    let (denied, others) = connections();
    let all = [denied, others].concat();
    let mut inside = Holder::start(fence.command(&scene.world.host, "sh"), "", &all)?;
    let mut options = vec!["--keep-established"];
    let deny = deny_server();
    options.extend(deny.each_ref().map(|word| &**word));
    assert_eq!(set(&scene, &fence, &options)?.stderr, "");
    inside.ensure_stand(&all)
}

/// Through loopback the packets of a connection are judged as well, lest an address turns local.
#[test]
fn connections_to_the_host_itself_end_or_are_left_alone() -> Result<()> {
    for (options, ends) in [
        (&["--deny", "host"][..], true),
        (&["--deny", "host", "--keep-established"], false),
    ] {
        let scene = Scene::new()?;
        let _echo = serve(scene.world.host.command("sh"), &format!("echo-tcp/{TCP}"))?;
        let rule = format!("tcp:host:{TCP}");
        let fence = nobody("host")?.with(&["--allow", &rule]);
        let all = [
            HOST_V4,
            HOST_V6,
            [127, 0, 0, 1].into(),
            std::net::Ipv6Addr::LOCALHOST.into(),
        ]
        .map(|host| to("tcp", host, TCP));
        let mut inside = Holder::start(fence.command(&scene.world.host, "sh"), "", &all)?;
        set(&scene, &fence, options)?;
        if ends {
            inside.await_ended(&all, "ECONNABORTED")?;
        } else {
            inside.ensure_stand(&all)?;
        }
    }
    Ok(())
}

#[test]
fn what_was_only_monitored_ends_when_the_policy_is_enforced() -> Result<()> {
    let scene = Scene::new()?;
    let _echo = serve(scene.world.host.command("sh"), &format!("echo-tcp/{TCP}"))?;
    let fence = nobody("enforce")?.with(&["--monitor"]);
    let denied = [HOST_V4, HOST_V6].map(|host| to("tcp", host, TCP));
    let (_, others) = connections();
    let all = [&denied[..], &others].concat();
    let mut inside = Holder::start(fence.command(&scene.world.host, "sh"), "", &all)?;
    set(&scene, &fence, &["--deny", "10.9.9.9"])?;
    inside.ensure_stand(&all)?;
    set(&scene, &fence, &["--enforce"])?;
    inside.await_ended(&denied, "ECONNABORTED")?;
    inside.ensure_stand(&others)
}

/// Connections to listeners of the fence's own end with the rule for `self`; a socket pair never ends.
#[test]
fn connections_to_own_listeners_end_with_their_rule() -> Result<()> {
    let scene = Scene::new()?;
    let fence = nobody("own")?.with(&["--allow", "self"]);
    let own = [to("tcp", [127, 0, 0, 1], TCP), to("tcp", HOST_V6, TCP)];
    let pair = [to("pair", [127, 0, 0, 1], 0)];
    let all = [&own[..], &pair].concat();
    let program = probe::program()?.display().to_string();
    let prefix = format!("{program} --serve echo-tcp/{TCP} >/dev/null & sleep 1;");
    let mut inside = Holder::start(fence.command(&scene.world.host, "sh"), &prefix, &all)?;
    // Another rule, and segments that are judged from then on.
    assert_eq!(set(&scene, &fence, &["--deny", "10.9.9.9"])?.stderr, "");
    inside.ensure_stand(&all)?;
    set(&scene, &fence, &["--deny", "host"])?;
    inside.await_ended(&own, "ECONNABORTED")?;
    inside.ensure_stand(&pair)
}

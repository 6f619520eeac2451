//! The reply exception ends with the policy that allowed it.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    thread,
};

use anyhow::{Context as _, Result, ensure};
use tests::{
    fence::{Fence, qfence},
    listener::Listeners,
    probe,
    run::{to_end, wait_until},
    shell::Shell,
    world::{HOST_V4, World},
};

use super::{PORT, ask, set};

/// The port in the fence that speaks to it.
const INSIDE: u16 = 5000;

/// The host's answers are answers, however often they come: they open no way.
#[test]
fn a_service_that_was_asked_has_not_spoken_first() -> Result<()> {
    let world = World::new()?;
    let services = Listeners::everywhere(&world.host, PORT)?;
    let rule = format!("udp:{HOST_V4}:{PORT}");
    for (before, after) in [
        (vec!["--allow", &*rule], vec!["--deny", &*rule]),
        (vec!["--monitor"], vec!["--enforce"]),
    ] {
        let fence = Fence::new("asked")?
            .with(&["--user", "nobody"])
            .with(&before);
        let mut inside = Shell::start(fence.command(&world.host, "sh"))?;
        let attempt = format!("udp/{HOST_V4}/{PORT}+port={INSIDE}+reuse");
        for _ in 0..3 {
            let outcome = ask(&mut inside, &attempt)?;
            ensure!(outcome.is_reached(), "control: {outcome:?}");
        }
        set(&world, &fence, &after)?;
        let arrived = services.arrivals().len();
        for _ in 0..3 {
            let outcome = ask(&mut inside, &attempt)?;
            assert!(
                outcome.failed_with("ECONNREFUSED"),
                "{after:?}: {outcome:?}"
            );
        }
        assert_eq!(services.arrivals().len(), arrived, "{after:?}");
        fence.await_refusal(|refusal| refusal.destination == HOST_V4.to_string())?;
        inside.tell("exit")?;
    }
    Ok(())
}

/// A nameserver that was asked, and is none any more.
#[test]
fn a_former_nameserver_is_answered_no_more() -> Result<()> {
    let world = World::new()?;
    let before: IpAddr = "127.0.0.53".parse()?;
    let _service = Listeners::everywhere(&world.host, 53)?;
    for change in ["resolv.conf", "--dns deny"] {
        world.write_resolv_conf("nameserver 127.0.0.53\n")?;
        let fence = Fence::new("dns")?.with(&["--user", "nobody"]);
        let mut inside = Shell::start(fence.command(&world.host, "sh"))?;
        let attempt = format!("udp/{before}/53+port={INSIDE}+reuse");
        let outcome = ask(&mut inside, &attempt)?;
        ensure!(outcome.is_reached(), "control: {outcome:?}");
        match change {
            "resolv.conf" => world.write_resolv_conf("nameserver 127.0.0.54\n")?,
            _ => drop(set(&world, &fence, &["--dns", "deny"])?),
        }
        wait_until("the former nameserver is refused", || {
            Ok(ask(&mut inside, &attempt)?.failed_with("ECONNREFUSED"))
        })
        .context(change)?;
        inside.tell("exit")?;
    }
    Ok(())
}

/// Who spoke first is answered, by a rule of its own, until the policy changes; and again when it speaks again.
#[test]
fn replies_are_counted_and_forgotten_with_the_policy() -> Result<()> {
    let world = World::new()?;
    let fence = Fence::new("replies")?.with(&["--user", "nobody"]);
    let mut inside = Shell::start(fence.command(&world.host, "sh"))?;
    let program = probe::program()?.display().to_string();
    inside.tell(&format!("{program} --serve udp/{INSIDE} &"))?;
    assert_eq!(inside.next_line()?, "serving");
    let speak = || -> Result<()> {
        let attempt = format!("udp/127.0.0.1/{INSIDE}+port={PORT}+reuse");
        let outcomes = probe::run(&world.host, &["--timeout-ms", "500", &attempt])?;
        ensure!(outcomes[0].errno.is_none(), "{outcomes:?}");
        Ok(())
    };
    let answer = format!("udp/127.0.0.1/{PORT}+port={INSIDE}+reuse");
    speak()?;
    let outcome = ask(&mut inside, &answer)?;
    ensure!(outcome.errno.is_none(), "control: {outcome:?}");

    let mut show = world.host.command(qfence()?);
    show.args(["policy", "show", "--json", fence.name()]);
    let shown: serde_json::Value = serde_json::from_str(&to_end(show)?.stdout)?;
    let replies = &shown["replies"];
    ensure!(replies["calls"].as_u64() >= Some(1), "{replies}");
    ensure!(replies["packets"].as_u64() >= Some(1), "{replies}");

    set(&world, &fence, &["--deny", "tcp:192.0.2.1:9"])?;
    let outcome = ask(&mut inside, &answer)?;
    assert!(outcome.failed_with("ECONNREFUSED"), "{outcome:?}");
    speak()?;
    let outcome = ask(&mut inside, &answer)?;
    ensure!(outcome.errno.is_none(), "after it spoke again: {outcome:?}");
    inside.tell("kill $!; exit")
}

/// A service that is bound to all addresses answers by one that the kernel chooses, which nobody has asked.
#[test]
fn an_answer_from_another_address_is_an_answer() -> Result<()> {
    let world = World::new()?;
    let asked = SocketAddr::new(HOST_V4, PORT);
    let any = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), PORT);
    let service = world.host.run(|| Ok(UdpSocket::bind(any)?))?;
    thread::spawn(move || -> std::io::Result<()> {
        let mut buffer = [0; 64];
        loop {
            let (_, peer) = service.recv_from(&mut buffer)?;
            service.send_to(b"here", peer)?;
        }
    });
    let fence = Fence::new("wild")?.with(&["--user", "nobody", "--allow", &format!("udp:{asked}")]);
    let mut inside = Shell::start(fence.command(&world.host, "sh"))?;
    let other = format!("udp/127.0.0.1/{PORT}+port={INSIDE}+reuse");
    let before = ask(&mut inside, &other)?;
    assert!(before.failed_with("ECONNREFUSED"), "{before:?}");
    // Bound to 127.0.0.1, so that the answer comes from there.
    let outcome = ask(
        &mut inside,
        &format!("udp/{HOST_V4}/{PORT}+src=127.0.0.1+port={INSIDE}+reuse"),
    )?;
    ensure!(outcome.is_reached(), "control: {outcome:?}");
    for _ in 0..3 {
        let outcome = ask(&mut inside, &other)?;
        assert!(outcome.failed_with("ECONNREFUSED"), "{outcome:?}");
    }
    inside.tell("exit")
}

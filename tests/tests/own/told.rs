//! What the record and `explain` say of `self`.

use anyhow::{Context as _, Result, ensure};
use tests::{fence::qfence, listener::Listeners, run::to_end, world::World};

use super::{HOST, INSIDE, nobody, serve, stop};

#[test]
fn a_refusal_that_self_would_allow_says_so() -> Result<()> {
    let world = World::new()?;
    let _services = Listeners::everywhere(&world.host, HOST)?;
    let fence = nobody("hint", &[])?;
    let mut shell = serve(&world, &fence, &format!("tcp/{INSIDE} echo-udp/{INSIDE}"))?;
    let attempts = [
        format!("tcp/127.0.0.1/{INSIDE}"),
        format!("udp/127.0.0.1/{INSIDE}"),
        format!("tcp/127.0.0.1/{HOST}"),
        "tcp/127.0.0.1/1".to_owned(),
    ];
    shell.attempt(&attempts.each_ref().map(String::as_str))?;
    for (protocol, port, of_self) in [
        ("tcp", INSIDE, true),
        ("udp", INSIDE, true),
        ("tcp", HOST, false),
        ("tcp", 1, false),
    ] {
        fence.await_refusal(|line| line.port == port && line.protocol == protocol)?;
        let log = std::fs::read_to_string(fence.log())?;
        let line = log.lines().find_map(|line| {
            let line: serde_json::Value = serde_json::from_str(line).ok()?;
            (line["port"] == port && line["protocol"] == protocol).then_some(line)
        });
        assert_eq!(
            line.context("a line")?["self"],
            of_self,
            "{protocol} {port}"
        );
    }
    let mut logs = world.host.command(qfence()?);
    logs.args(["logs", fence.name()]);
    let text = to_end(logs)?.stdout;
    let hint = "(the listener was made in this fence: --allow tcp:self:5000)";
    assert!(text.contains(hint), "{text}");
    stop(shell)
}

#[test]
fn explain_tells_of_self() -> Result<()> {
    let world = World::new()?;
    let explain = |arguments: &[&str]| -> Result<String> {
        let mut command = world.host.command(qfence()?);
        command.arg("explain").args(arguments);
        let ended = to_end(command)?;
        ensure!(ended.code() == Some(0), "{ended:?}");
        Ok(ended.stdout + &ended.stderr)
    };
    let with = explain(&["--allow", "self", "tcp:127.0.0.1:8000"])?;
    let expected = "deny host; allow self, if the listener was made in the fence";
    assert!(with.contains(expected), "{with}");
    let without = explain(&["tcp:127.0.0.1:8000"])?;
    assert!(without.contains("--allow tcp:self:8000"), "{without}");
    assert!(!explain(&["tcp:192.0.2.99:8000"])?.contains("self"));
    Ok(())
}

//! Serving metrics: idle connections, and addresses that cannot be served.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    time::Duration,
};

use anyhow::{Context as _, Result};
use tests::{
    fence::{Fence, qfence, unique_name},
    remains,
    shell::Shell,
    world::World,
};

use super::METRICS;

/// How long an answer may take that waits for nobody else. Those who say nothing get seconds each.
const AT_ONCE: Duration = Duration::from_secs(20);

#[test]
fn connections_that_say_nothing_keep_nobody_out() -> Result<()> {
    let world = World::new()?;
    let fence = Fence::new("idle")?.with(&["--user", "nobody", "--metrics", METRICS]);
    let _shell = Shell::start(fence.command(&world.host, "sh"))?;
    world.host.run(|| {
        let connect = || TcpStream::connect(METRICS).context("connect");
        let mut idle: Vec<_> = (0..64).map(|_| connect()).collect::<Result<_>>()?;
        for stream in idle.iter_mut().step_by(2) {
            // Those who begin to ask are as idle. It may have been closed by now.
            let _ = stream.write_all(b"GET /met");
        }
        for _ in 0..3 {
            let mut stream = connect()?;
            stream.set_read_timeout(Some(AT_ONCE))?;
            write!(stream, "GET /metrics HTTP/1.0\r\n\r\n")?;
            let mut answer = String::new();
            stream
                .read_to_string(&mut answer)
                .context("an answer at once")?;
            assert!(answer.contains(fence.name()), "{answer}");
        }
        drop(idle);
        Ok(())
    })
}

#[test]
fn where_it_cannot_be_served_nothing_is_started() -> Result<()> {
    let world = World::new()?;
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("file");
    fs::write(&file, "")?;
    let in_use = world
        .host
        .run(|| Ok(std::net::TcpListener::bind(METRICS)?))?;
    let unix = format!("unix:{}", file.display());
    for (address, said) in [
        (
            METRICS,
            "cannot serve metrics at 127.0.0.1:9469: Address already in use",
        ),
        (unix.as_str(), "the path is a file, not a socket"),
        ("127.0.0.1:70000", "give an address and a port"),
    ] {
        let name = unique_name("unserved");
        let output = world
            .host
            .command(qfence()?)
            .args([
                "exec",
                "--name",
                &name,
                "--user",
                "nobody",
                "--metrics",
                address,
            ])
            .args(["--", "echo", "ran"])
            .output()?;
        let stderr = String::from_utf8(output.stderr)?;
        assert_eq!(output.status.code(), Some(125), "{stderr}");
        assert!(stderr.contains(said), "{address}: {stderr}");
        assert_eq!(output.stdout, b"", "{address}");
        remains::ensure_none(&name)?;
    }
    drop(in_use);
    Ok(())
}

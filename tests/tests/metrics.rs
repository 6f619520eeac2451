//! Metrics as a monitoring system has them: Debian's Prometheus scrapes a fence, and what it says of it is
//! compared with what was done in there.

use std::{
    collections::BTreeSet,
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    os::unix::net::UnixStream,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use nix::{
    fcntl::{Flock, FlockArg},
    sys::signal::Signal,
};
use serde_json::Value;
use tests::{
    debian::prometheus,
    fence::{Fence, qfence, unique_name},
    namespace::Namespace,
    private::Private,
    probe,
    process::Process,
    remains,
    run::{to_end, to_end_with_input, wait_until},
    shell::Shell,
    workspace,
    world::World,
};

const METRICS: &str = "127.0.0.1:9469";
const PROMETHEUS: &str = "127.0.0.1:9090";
const ATTEMPTS: u64 = 1234;

/// The files that come with qfence.
fn contributed(path: &str) -> std::path::PathBuf {
    workspace::root().join("contrib").join(path)
}

/// Asks by HTTP within a namespace; the body of the answer.
fn get(namespace: &Namespace, address: &str, path: &str) -> Result<String> {
    namespace.run(|| {
        let mut stream = TcpStream::connect(address)?;
        write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").context("an answer")?;
        if !head.contains(" 200 ") {
            bail!("{path}: {answer}");
        }
        Ok(body.to_owned())
    })
}

/// What Prometheus makes of an expression: the samples.
fn query(world: &World, expression: &str) -> Result<Vec<Value>> {
    let encoded: String = expression
        .bytes()
        .map(|byte| format!("%{byte:02x}"))
        .collect();
    let answer = get(
        &world.host,
        PROMETHEUS,
        &format!("/api/v1/query?query={encoded}"),
    )
    .with_context(|| expression.to_owned())?;
    let answer: Value = serde_json::from_str(&answer)?;
    assert_eq!(answer["status"], "success", "{expression}: {answer}");
    let result = answer["data"]["result"].as_array().context("a result")?;
    Ok(result.clone())
}

/// The value of an expression that has one.
fn value(world: &World, expression: &str) -> Result<Option<f64>> {
    let samples = query(world, expression)?;
    let Some(sample) = samples.first() else {
        return Ok(None);
    };
    Ok(Some(
        sample["value"][1].as_str().context("a value")?.parse()?,
    ))
}

fn promtool(words: &[&str], input: &str) -> Result<String> {
    let mut command = Command::new(prometheus()?.join("promtool"));
    command.args(words);
    let ended = to_end_with_input(command, input.as_bytes())?;
    assert_eq!(
        ended.code(),
        Some(0),
        "{words:?}: {}{}",
        ended.stdout,
        ended.stderr
    );
    Ok(ended.stdout)
}

/// Starts Prometheus in the host's namespace, with the configuration that comes with qfence.
fn start(world: &World, directory: &Path) -> Result<Process> {
    let config = fs::read_to_string(contributed("prometheus/scrape.yml"))?;
    assert!(
        config.contains(METRICS) && config.contains("scrape_interval: 15s"),
        "{config}"
    );
    fs::write(
        directory.join("prometheus.yml"),
        config.replace("scrape_interval: 15s", "scrape_interval: 1s"),
    )?;
    fs::copy(
        contributed("prometheus/alerts.yml"),
        directory.join("alerts.yml"),
    )?;
    let mut command = world.host.command(prometheus()?.join("prometheus"));
    command
        .arg(format!(
            "--config.file={}",
            directory.join("prometheus.yml").display()
        ))
        .arg(format!(
            "--storage.tsdb.path={}",
            directory.join("data").display()
        ))
        .arg(format!("--web.listen-address={PROMETHEUS}"))
        .stdout(Stdio::null())
        .stderr(fs::File::create(directory.join("stderr"))?);
    Process::spawn(command)
}

#[test]
fn a_prometheus_has_the_counts_and_takes_the_dashboard_and_the_alerts() -> Result<()> {
    let world = World::new()?;
    let directory = tempfile::tempdir()?;
    let fence = Fence::new("metrics")?.with(&["--user", "nobody", "--metrics", METRICS]);
    let mut shell = Shell::start(fence.command(&world.host, "sh"))?;
    shell.ask(&format!(
        "{} --flood {ATTEMPTS} udp/127.0.0.1/9",
        probe::program()?.display()
    ))?;
    shell.attempt(&["tcp/::1/22"])?;
    let _prometheus = start(&world, directory.path())?;
    let name = fence.name();
    let has = |expression: &str, expected: f64| {
        let said = || fs::read_to_string(directory.path().join("stderr")).unwrap_or_default();
        // Nobody listens until it has started.
        wait_until(&format!("{expression} is {expected}"), || {
            Ok(value(&world, expression).ok().flatten() == Some(expected))
        })
        .with_context(said)
    };
    has("up{job=\"qfence\"}", 1.0)?;
    let all = ATTEMPTS as f64 + 1.0;
    has(
        &format!("qfence_attempts_total{{fence=\"{name}\",verdict=\"denied\"}}"),
        all,
    )?;
    has(
        &format!("sum(qfence_attempts_recorded_total{{fence=\"{name}\"}})"),
        all,
    )?;
    for (expression, expected) in [
        ("qfence_attempts_recorded_total{how=\"first\"}", 2.0),
        ("qfence_attempts_recorded_total{how=\"lost\"}", 0.0),
        (
            "qfence_verdicts_total{action=\"deny\",protocol=\"udp\"}",
            ATTEMPTS as f64,
        ),
        (
            "qfence_verdicts_total{action=\"deny\",protocol=\"tcp\"}",
            1.0,
        ),
        (
            "qfence_rule_hits_total{rule=\"deny host\",layer=\"call\"}",
            all,
        ),
        ("qfence_connects_total{way=\"refused\"}", 1.0),
        ("qfence_policy_generation", 1.0),
        ("qfence_fence_info{state=\"running\",mode=\"enforce\"}", 1.0),
    ] {
        assert_eq!(value(&world, expression)?, Some(expected), "{expression}");
    }
    assert!(value(&world, "qfence_host_set_members")?.is_some_and(|members| members > 4.0));

    let text = get(&world.host, METRICS, "/metrics")?;
    let known: BTreeSet<&str> = text
        .lines()
        .filter_map(|line| line.split(['{', ' ']).next())
        .filter(|name| name.starts_with("qfence_"))
        .collect();
    let mut expressions = dashboard()?;
    expressions.extend(alerts()?);
    assert!(expressions.len() > 12, "{expressions:?}");
    for expression in expressions {
        for name in names(&expression) {
            assert!(
                known.contains(name.as_str()),
                "{name} of {expression}: {known:?}"
            );
        }
        query(&world, &expression)?;
    }
    // The control: what is no expression is found out.
    assert!(query(&world, "sum by (").is_err());
    Ok(())
}

/// The expressions of the dashboard, as Grafana would send them.
fn dashboard() -> Result<Vec<String>> {
    let dashboard: Value =
        serde_json::from_str(&fs::read_to_string(contributed("grafana/qfence.json"))?)?;
    let mut expressions = Vec::new();
    for panel in dashboard["panels"].as_array().context("panels")? {
        for target in panel["targets"].as_array().context("targets")? {
            let expression = target["expr"].as_str().context("an expression")?;
            let expression = expression.replace("$fence", ".*");
            expressions.push(expression.replace("$__rate_interval", "1m"));
        }
    }
    Ok(expressions)
}

/// The expressions of the alerts, each on a line of its own.
fn alerts() -> Result<Vec<String>> {
    let alerts = fs::read_to_string(contributed("prometheus/alerts.yml"))?;
    let expressions = alerts
        .lines()
        .filter_map(|line| line.trim().strip_prefix("expr: "));
    Ok(expressions.map(str::to_owned).collect())
}

/// The metrics that an expression names.
fn names(expression: &str) -> Vec<String> {
    let words = expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let named = words.filter(|word| word.starts_with("qfence_"));
    named.map(str::to_owned).collect()
}

#[test]
fn promtool_takes_what_comes_with_qfence_and_what_it_says() -> Result<()> {
    let world = World::new()?;
    let fence = Fence::new("promtool")?.with(&["--user", "nobody", "--metrics", METRICS]);
    let _shell = Shell::start(fence.command(&world.host, "sh"))?;
    // That knows Prometheus's own format alone.
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("qfence.prom");
    probe::output(
        Command::new(qfence()?)
            .args(["metrics", "--textfile"])
            .arg(&file),
    )?;
    let text = fs::read_to_string(file)?;
    assert!(
        text.contains(&format!("fence=\"{}\"", fence.name())),
        "{text}"
    );
    promtool(&["check", "metrics"], &text)?;
    let rules = contributed("prometheus/alerts.yml");
    let found = promtool(&["check", "rules", &rules.display().to_string()], "")?;
    assert!(found.contains("6 rules found"), "{found}");
    let config = contributed("prometheus/scrape.yml");
    promtool(&["check", "config", &config.display().to_string()], "")?;
    Ok(())
}

#[test]
fn all_fences_are_in_one_exposition_printed_written_or_served() -> Result<()> {
    let world = World::new()?;
    let fence = Fence::new("all")?.with(&["--user", "nobody"]);
    let _shell = Shell::start(fence.command(&world.host, "sh"))?;
    let expected = format!(
        "qfence_attempts_total{{fence=\"{}\",verdict=\"denied\"}} 0",
        fence.name()
    );

    let printed = probe::output(Command::new(qfence()?).arg("metrics"))?;
    assert!(printed.contains(&expected), "{printed}");
    assert!(printed.ends_with("# EOF\n"), "{printed}");

    let directory = tempfile::tempdir()?;
    let file = directory.path().join("qfence.prom");
    probe::output(
        Command::new(qfence()?)
            .args(["metrics", "--textfile"])
            .arg(&file),
    )?;
    assert!(fs::read_to_string(&file)?.contains(&expected));

    let socket = directory.path().join("socket");
    let mut command = Command::new(qfence()?);
    command.args(["metrics", "--listen", &format!("unix:{}", socket.display())]);
    let mut server = Process::spawn(command)?;
    wait_until("it listens", || Ok(UnixStream::connect(&socket).is_ok()))?;
    let mut stream = UnixStream::connect(&socket)?;
    write!(stream, "GET /metrics HTTP/1.0\r\n\r\n")?;
    let mut served = String::new();
    stream.read_to_string(&mut served)?;
    assert!(served.contains(&expected), "{served}");
    server.signal(Signal::SIGTERM)?;
    assert!(server.wait(tests::run::HANG)?.context("it ends")?.success());
    assert!(!socket.exists());
    Ok(())
}

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
fn to_collect_changes_nothing_and_waits_for_nobody() -> Result<()> {
    let host = Private::new()?;
    let metrics = || {
        let mut command = host.qfence()?;
        command.arg("metrics");
        let ended = to_end(command)?;
        assert_eq!(ended.code(), Some(0), "{ended:?}");
        assert_eq!(ended.stderr, "");
        Ok::<_, anyhow::Error>(ended.stdout)
    };
    let parent = host.cgroup().join("qfence");
    assert!(!metrics()?.contains("fence=\""));
    assert!(!parent.exists(), "a cgroup was made");
    host.namespace().run(|| {
        assert!(!Path::new("/run/qfence").exists());
        assert!(!Path::new("/sys/fs/bpf/qfence").exists());
        Ok(())
    })?;

    let mut command = host.qfence()?;
    command.args(["exec", "--name", "vm1", "--user", "nobody", "--", "sh"]);
    let mut shell = Shell::start(command)?;
    // What a dead fence left is not theirs to clear.
    fs::create_dir(parent.join("dead"))?;
    let description = Path::new("/run/qfence/dead.json");
    host.namespace().run(|| Ok(fs::write(description, "{}")?))?;
    // Somebody makes or removes a fence, and does not come to an end of it.
    let lock = Flock::lock(fs::File::open(&parent)?, FlockArg::LockExclusive);
    let lock = lock.map_err(|(_, errno)| errno)?;
    let text = metrics()?;
    assert!(text.contains("fence=\"vm1\""), "{text}");
    assert!(!text.contains("dead"), "{text}");
    assert!(parent.join("dead").exists());
    host.namespace().run(|| {
        assert!(description.exists());
        Ok(())
    })?;
    drop(lock);
    // The control: `ps` clears it.
    let mut command = host.qfence()?;
    command.arg("ps");
    let ended = to_end(command)?;
    assert!(
        ended
            .stderr
            .contains("clearing the remains of the fence dead"),
        "{ended:?}"
    );
    assert!(!parent.join("dead").exists());
    shell.close_input();
    assert_eq!(shell.wait_for_code()?, 0);
    Ok(())
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

//! Debian's Prometheus: the counts, the dashboard, the alerts, and `promtool`.

use std::{
    collections::BTreeSet,
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use tests::{
    debian::prometheus,
    fence::{Fence, qfence},
    namespace::Namespace,
    probe,
    process::Process,
    run::{to_end_with_input, wait_until},
    shell::Shell,
    workspace,
    world::World,
};

use super::METRICS;

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

//! A fence on a slice tells the units in it apart.

use anyhow::{Context as _, Result};
use serde_json::Value;
use tests::run::wait_until;

use super::Scene;

#[test]
fn units_of_a_slice_are_told_apart_in_the_record() -> Result<()> {
    let scene = Scene::new()?;
    // Something in the slice keeps it.
    let slice = "--slice=vms.slice";
    scene.output(&["systemd-run", slice, "--unit=keeper", "sleep", "1000"])?;
    let attach = ["attach", "--unit", "vms.slice", "--name", "vms", "--detach"];
    let attached = scene.qfence(&attach)?;
    assert_eq!(attached.code(), Some(0), "{attached:?}");

    let mut follow = scene.machine.command(&scene.program)?;
    follow.args(["logs", "-f", "--json", "vms"]);
    let log = tempfile::NamedTempFile::new()?;
    follow.stdout(log.reopen()?);
    let _follow = tests::process::Process::spawn(follow)?;
    let lines = || -> Result<Vec<Value>> {
        let text = std::fs::read_to_string(log.path())?;
        let whole = text.lines().map(serde_json::from_str);
        whole
            .collect::<Result<_, _>>()
            .with_context(|| text.clone())
    };
    let attempt = |unit: &str, port: u16| {
        let ask = format!("echo > /dev/tcp/127.0.0.1/{port}; sleep 1000");
        let unit = format!("--unit={unit}");
        scene.output(&["systemd-run", slice, &unit, "bash", "-c", &ask])
    };
    attempt("web", 1)?;
    attempt("db", 2)?;
    for (port, workload) in [(1, "unit web.service"), (2, "unit db.service")] {
        let mut found = Value::Null;
        let seen = wait_until("the attempt is a line", || {
            let line = lines()?.into_iter().find(|line| line["port"] == port);
            found = line.unwrap_or_default();
            Ok(!found.is_null())
        });
        seen.with_context(|| scene.journal())?;
        assert_eq!(found["workload"], workload, "{found}");
        assert_eq!(found["fence"], "vms", "{found}");
    }
    let shown = scene.output(&[&scene.program, "logs", "vms", "--workload", "db"])?;
    assert!(
        shown.contains(" of unit db.service rule ") && !shown.contains("web"),
        "{shown}"
    );
    scene.output(&[&scene.program, "rm", "vms"])?;
    scene.machine.end()
}

//! The fields of a JSON line.

use std::process::Command;

use anyhow::{Context as _, Result};
use serde_json::Value;
use tests::{
    fence::{Fence, qfence},
    probe,
    world::World,
};

use super::flood;

#[test]
fn a_json_line_has_exactly_the_documented_fields() -> Result<()> {
    let (lines, _) = flood("tcp/127.0.0.1/9", 1)?;
    let line = lines
        .first()
        .and_then(Value::as_object)
        .context("one line")?;
    let help = Command::new(qfence()?).args(["exec", "--help"]).output()?;
    let help = String::from_utf8(help.stdout)?;
    let documented: Vec<&str> = help
        .lines()
        .skip_while(|line| !line.starts_with("Fields of a JSON log line"))
        .skip(1)
        .take_while(|line| !line.starts_with("In lines of kind folded"))
        // A line that is indented further goes on with the field before it.
        .filter_map(|line| line.strip_prefix("  ")?.split(' ').next())
        .filter(|field| !field.is_empty())
        .collect();
    // These are in lines about sockets, ports, devices and frames (`devices.rs`, `closures/`, `tap/modes.rs`).
    let mut expected: Vec<&str> = documented
        .into_iter()
        .filter(|field| {
            let of_others = [
                "socket",
                "device",
                "unix",
                "manager",
                "local",
                "local_port",
                "frame",
                "target",
            ];
            !of_others.contains(field)
        })
        .collect();
    let mut logged: Vec<&str> = line.keys().map(String::as_str).collect();
    expected.sort_unstable();
    logged.sort_unstable();
    assert_eq!(logged, expected);
    assert_eq!(
        (
            &line["verdict"],
            &line["protocol"],
            &line["destination"],
            &line["port"]
        ),
        (
            &"denied".into(),
            &"tcp".into(),
            &"127.0.0.1".into(),
            &9.into()
        )
    );
    assert_eq!(
        (&line["hook"], &line["command"]),
        (&"connect4".into(), &"probe".into())
    );
    Ok(())
}

#[test]
fn a_record_names_the_process_its_cgroup_and_the_moment() -> Result<()> {
    let world = World::new()?;
    let fence = Fence::new("record")?.with(&["--user", "nobody"]);
    let before = now()?;
    let script = format!(
        "echo $$; stat -c %i $(awk '$3 == \"cgroup2\" {{print $2; exit}}' /proc/mounts)$(sed -n s,^0::.*/qfence/,/qfence/,p \
         /proc/self/cgroup); exec {} udp/127.0.0.1/9",
        probe::program()?.display()
    );
    let output = fence
        .command(&world.host, "sh")
        .args(["-c", &script])
        .output()?;
    let after = now()?;
    let stdout = String::from_utf8(output.stdout)?;
    let mut said = stdout.lines();
    let refusals = fence.refusals()?;
    let refusal = refusals.first().context("one refusal")?;
    assert_eq!(
        Some(refusal.pid.to_string().as_str()),
        said.next(),
        "{stdout}"
    );
    assert_eq!(
        Some(refusal.cgroup.to_string().as_str()),
        said.next(),
        "{stdout}"
    );
    assert_eq!(refusal.fence, fence.name());
    assert_eq!(refusal.hook, "sendmsg4");
    // RFC 3339 in UTC sorts as text, to the whole second here.
    let second = refusal.time.get(..19).context("a date and a time")?;
    assert!(refusal.time.ends_with('Z'), "{refusal:?}");
    assert!(
        before.as_str() <= second && second <= after.as_str(),
        "{before} {refusal:?} {after}"
    );
    Ok(())
}

/// The time as records have it, to the second.
fn now() -> Result<String> {
    let output = Command::new("date")
        .args(["-u", "+%Y-%m-%dT%H:%M:%S"])
        .output()?;
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

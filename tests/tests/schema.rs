//! The lines of the JSON log are what the schema says, and the schema says what they are.

use std::{collections::BTreeSet, fs, process::Command};

use anyhow::{Context as _, Result};
use jsonschema::Validator;
use qfence_common::{
    HOOKS, Hook,
    hook::{FRAME_HOOKS, LSM_HOOKS},
};
use serde_json::Value;
use tests::{
    fence::{Fence, qfence, verifier},
    probe, workspace,
    world::World,
};

fn schema() -> Result<Value> {
    let path = workspace::root().join("docs/record.schema.json");
    Ok(serde_json::from_str(&fs::read_to_string(path)?)?)
}

pub(crate) fn validator() -> Result<Validator> {
    jsonschema::validator_for(&schema()?).map_err(|error| anyhow::anyhow!("{error}"))
}

/// Runs a script in a fence; the lines of its log.
fn lines(world: &World, options: &[&str], script: &str) -> Result<Vec<Value>> {
    let fence = Fence::new("schema")?
        .with(&["--user", "root"])
        .with(options);
    let output = fence
        .command(&world.host, "bash")
        .args(["-c", script])
        .output()?;
    let text = fs::read_to_string(fence.log())?;
    let parsed: Vec<Value> = text
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()?;
    assert!(!parsed.is_empty(), "{output:?}");
    Ok(parsed)
}

/// Lines of all kinds, from real fences.
fn all() -> Result<Vec<Value>> {
    let world = World::new()?;
    let probe = probe::program()?.display().to_string();
    let verifier = verifier()?.display().to_string();
    let script = format!(
        "{probe} --timeout-ms 100 tcp/127.0.0.1/9 tcp/::1/9 udp/127.0.0.1/9 udp/::1/9 udp/::1/9 \
         udp-connected/192.0.2.10/9 ping/127.0.0.1 ping/::1; \
         {verifier} probe --timeout-ms 100 raw-icmp/127.0.0.1 l2tp/127.0.0.1; \
         {verifier} open /dev/net/tun; \
         for port in {{1000..1200}}; do echo >/dev/udp/127.0.0.1/$port; done; sleep 1.5"
    );
    let mut lines = lines(&world, &[], &script)?;
    lines.extend(self::lines(
        &world,
        &["--monitor"],
        "echo >/dev/udp/127.0.0.1/9",
    )?);
    let closed = "python3 -c '
import socket
for make in (lambda: socket.socket(socket.AF_UNIX).connect(\"/run/x\"), lambda: socket.socket().bind((\"\", 9))):
    try:
        make()
    except OSError:
        pass
'";
    lines.extend(self::lines(
        &world,
        &["--strict=sockets,listeners", "--allow-read", "/"],
        closed,
    )?);
    Ok(lines)
}

/// All that the schema lists for a field, wherever it does.
fn listed(schema: &Value, field: &str, found: &mut Vec<BTreeSet<String>>) {
    match schema {
        Value::Object(object) => {
            let names = object.get(field).and_then(|of| of["enum"].as_array());
            found.extend(names.map(|names| {
                let names = names.iter().filter_map(Value::as_str);
                names.map(str::to_owned).collect()
            }));
            object
                .values()
                .for_each(|value| listed(value, field, found));
        }
        Value::Array(values) => values.iter().for_each(|value| listed(value, field, found)),
        _ => {}
    }
}

/// The schema lists the hooks that there are, and their layers.
#[test]
fn the_schema_knows_all_hooks() -> Result<()> {
    let schema = schema()?;
    // Nothing is refused to a guest at the hook for frames to it.
    let of_frames = || FRAME_HOOKS.iter().filter(|row| row.hook != Hook::FrameOut);
    let hooks = || HOOKS.iter().chain(&LSM_HOOKS).chain(of_frames());
    for (field, names) in [
        ("hook", hooks().map(|row| row.name).collect()),
        ("layer", hooks().map(|row| row.layer.name()).collect()),
    ] {
        let mut found = Vec::new();
        listed(&schema, field, &mut found);
        assert!(!found.is_empty(), "{field}");
        let names: Vec<&str> = names;
        let names: BTreeSet<String> = names.into_iter().map(str::to_owned).collect();
        for list in found {
            assert_eq!(list, names, "{field}");
        }
    }
    Ok(())
}

#[test]
fn every_line_is_as_the_schema_says() -> Result<()> {
    let validator = validator()?;
    let lines = all()?;
    let kinds = |field: &str| -> BTreeSet<&str> {
        lines
            .iter()
            .filter_map(|line| line[field].as_str())
            .collect()
    };
    assert_eq!(
        kinds("kind"),
        BTreeSet::from(["attempt", "folded", "repeats"])
    );
    assert_eq!(kinds("verdict"), BTreeSet::from(["denied", "would-deny"]));
    assert_eq!(
        kinds("layer"),
        BTreeSet::from(["call", "device", "packet", "socket"])
    );
    for line in &lines {
        if let Err(error) = validator.validate(line) {
            panic!("{line}: {error}");
        }
    }
    Ok(())
}

#[test]
fn lines_of_what_was_let_through_are_as_the_schema_says() -> Result<()> {
    let (world, validator) = (World::new()?, validator()?);
    let probe = probe::program()?.display().to_string();
    let ports: Vec<_> = (1000..1100)
        .map(|port| format!("udp/{}/{port}", tests::world::SERVER_V4))
        .collect();
    let script = format!("{probe} --timeout-ms 1 {} udp/127.0.0.1/9", ports.join(" "));
    let lines = lines(&world, &["--log-allowed"], &script)?;
    for kind in ["allowed", "traffic"] {
        let line = lines.iter().find(|line| line["kind"] == kind);
        let fields = line.with_context(|| format!("{kind}: {lines:?}"))?;
        let fields = fields.as_object().context("an object")?;
        for field in fields.keys() {
            let mut without = fields.clone();
            without.remove(field);
            assert!(
                !validator.is_valid(&without.into()),
                "{kind} without {field}"
            );
        }
    }
    for line in &lines {
        if let Err(error) = validator.validate(line) {
            panic!("{line}: {error}");
        }
    }
    Ok(())
}

#[test]
fn lines_of_look_ups_are_as_the_schema_says() -> Result<()> {
    let (world, validator) = (World::new()?, validator()?);
    let probe = probe::program()?.display().to_string();
    // No nameserver answers there, so what is allowed fails.
    let [denied, failed] =
        ["evil.example", "www.example.org"].map(|name| format!("dns/127.0.0.53/{name}"));
    let script = format!("{probe} {denied} {denied} {failed}; sleep 1.5");
    let options = ["--profile", "locked", "--allow", "www.example.org"];
    let lines = lines(&world, &options, &script)?;
    for (verdict, again) in [("denied", false), ("denied", true), ("failed", false)] {
        let is_it = |line: &&Value| {
            (&line["kind"], &line["verdict"], &line["again"])
                == (&"lookup".into(), &verdict.into(), &again.into())
        };
        let line = lines.iter().find(is_it);
        let fields = line.with_context(|| format!("{verdict}, {again}: {lines:?}"))?;
        let fields = fields.as_object().context("an object")?;
        for field in fields.keys() {
            let mut without = fields.clone();
            without.remove(field);
            assert!(!validator.is_valid(&without.into()), "without {field}");
        }
    }
    for line in &lines {
        if let Err(error) = validator.validate(line) {
            panic!("{line}: {error}");
        }
    }
    Ok(())
}

#[test]
fn what_is_no_line_is_not_taken_for_one() -> Result<()> {
    let validator = validator()?;
    let lines = all()?;
    let is_it = |kind: &'static str| move |line: &&Value| line["kind"] == kind;
    for kind in ["attempt", "folded"] {
        let line = lines.iter().find(is_it(kind)).context("such a line")?;
        assert!(validator.is_valid(line), "control: {line}");
        let fields = line.as_object().context("an object")?;
        for field in fields.keys() {
            let mut without = fields.clone();
            without.remove(field);
            assert!(
                !validator.is_valid(&without.into()),
                "{kind} without {field}"
            );
        }
        let mut more = fields.clone();
        more.insert("more".into(), 1.into());
        assert!(!validator.is_valid(&more.into()), "{kind}");
        let mut other = fields.clone();
        other.insert("v".into(), 2.into());
        assert!(!validator.is_valid(&other.into()), "{kind}");
    }
    Ok(())
}

#[test]
fn the_help_lists_the_fields_of_the_schema() -> Result<()> {
    let mut in_schema = BTreeSet::new();
    let schema = schema()?;
    for variant in schema["oneOf"].as_array().context("variants")? {
        let properties = variant["properties"].as_object().context("properties")?;
        in_schema.extend(properties.keys().cloned());
    }
    let help = Command::new(qfence()?).args(["exec", "--help"]).output()?;
    let help = String::from_utf8(help.stdout)?;
    let documented: BTreeSet<String> = help
        .lines()
        .skip_while(|line| !line.starts_with("Fields of a JSON log line"))
        .skip(1)
        .take_while(|line| !line.starts_with("In repeats"))
        .filter_map(|line| line.strip_prefix("  ")?.split(' ').next())
        .filter(|field| !field.is_empty())
        .map(str::to_owned)
        .collect();
    assert_eq!(documented, in_schema);
    Ok(())
}

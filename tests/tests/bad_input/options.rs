//! Options whose values or words are wrong.

use std::{fs, process::Command};

use anyhow::Result;
use tests::{
    fence::{Fence, qfence},
    namespace::Namespace,
    remains,
    run::to_end,
    shell::Shell,
};

use super::refused_by;

/// Has `exec` with these options try to touch a file; makes sure that it failed, that the file is
/// not there, and that nothing is left, and returns what was said.
fn refused(options: &[&str]) -> Result<String> {
    refused_by(Command::new(qfence()?), options)
}

/// Like [`refused`], and makes sure that it is the message that was expected.
fn assert_refused(options: &[&str], message: &str) -> Result<()> {
    assert_eq!(refused(options)?, format!("{message}\n"), "{options:?}");
    Ok(())
}

#[test]
fn a_name_must_be_one() -> Result<()> {
    let long = "x".repeat(81);
    for (name, shown) in [
        ("", "\"\""),
        (".", "\".\""),
        ("..", "\"..\""),
        ("a/b", "\"a/b\""),
        ("cgroup.procs", "\"cgroup.procs\""),
        (&long, &format!("{long:?}")),
        ("a\nb", "\"a\\nb\""),
        ("\u{1b}[2J", "\"\\u{1b}[2J\""),
    ] {
        let message = format!(
            "qfence: error: {shown} cannot be the name of a fence: it must be a file name of at \
             most 80 bytes, without control characters, and not begin with \"cgroup.\""
        );
        assert_refused(&["--name", name], &message)?;
    }
    Ok(())
}

#[test]
fn a_name_in_use_stays_with_who_uses_it() -> Result<()> {
    let fence = Fence::new("in-use")?.with(&["--user", "nobody"]);
    let mut shell = Shell::start(fence.command(&Namespace::new()?, "sh"))?;
    let name = fence.name();
    assert_refused(
        &["--name", name],
        &format!(
            "qfence: error: a fence named {name:?} already exists; choose another --name (see \
             `qfence-user ps`)"
        ),
    )?;
    remains::ensure_whole(name)?;
    assert_eq!(remains::pids(name)?, [shell.pid()?]);
    let outcomes = shell.attempt(&["tcp/127.0.0.1/9"])?;
    assert!(outcomes[0].failed_with("ECONNREFUSED"), "{outcomes:?}");
    fence.await_refusal(|refusal| refusal.port == 9)?;
    shell.close_input();
    assert_eq!(shell.wait_for_code()?, 0);
    remains::ensure_none(name)
}

#[test]
fn users_and_groups_must_be_known() -> Result<()> {
    for (user, message) in [
        ("no-such-user", "there is no user \"no-such-user\""),
        ("", "there is no user \"\""),
        (
            "nobody:no-such-group",
            "there is no group \"no-such-group\"",
        ),
        (
            "4242424",
            "user id 4242424 is unknown, so its group is too: give --user 4242424:GID",
        ),
    ] {
        assert_refused(&["--user", user], &format!("qfence: error: {message}"))?;
    }
    Ok(())
}

#[test]
fn values_of_options_must_make_sense() -> Result<()> {
    for (option, value, message) in [
        (
            "--deny-with",
            "foo",
            "'--deny-with <DENY_WITH>'\n  [possible values: refused, unreachable, denied, drop]",
        ),
        (
            "--dns",
            "foo",
            "'--dns <DNS>'\n  [possible values: auto, deny]",
        ),
        (
            "--log-format",
            "foo",
            "'--log-format <LOG_FORMAT>'\n  [possible values: text, json]",
        ),
        (
            "--log",
            "",
            "'--log <PATH[,max=SIZE][,keep=NUMBER]|stderr|journald|syslog[:SOCKET]|none>': give a path, \
             stderr, journald, syslog or none",
        ),
        (
            "--memory-max",
            "x",
            "'--memory-max <SIZE>': \"x\" is no size: give bytes, or a number and K, M, G or T",
        ),
        (
            "--cpu-max",
            "x",
            "'--cpu-max <SHARE>': \"x\" is no share of CPU time: give a percentage of one CPU, as \
             150%, or microseconds a period, as 150000/100000",
        ),
        (
            "--pids-max",
            "0",
            "'--pids-max <N>': 0 is not in 1..=4294967295",
        ),
        (
            "--mac",
            "ff:ff:ff:ff:ff:ff",
            "'--mac <MAC>': \"ff:ff:ff:ff:ff:ff\" is no MAC address; give six bytes, such as 52:54:00:12:34:56, and \
             none for several cards (its first byte is odd)",
        ),
        (
            "--device",
            "t%d",
            "'--device <NAME>': \"t%d\" is no name of a network device: it has up to 15 bytes, without blanks, / : \
             and %",
        ),
        (
            "--tap",
            "t0,br0",
            "'--tap <NAME[,bridge=BRIDGE]>': \"br0\" is not known; give NAME or NAME,bridge=BRIDGE",
        ),
        (
            "--preserve-fds",
            "x",
            "'--preserve-fds <N>': invalid digit found in string",
        ),
    ] {
        let hint = "For more information, try '--help'.";
        assert_refused(
            &[option, value],
            &format!("error: invalid value '{value}' for {message}\n\n{hint}"),
        )?;
    }
    Ok(())
}

#[test]
fn words_must_be_known_and_complete() -> Result<()> {
    let no_command = "error: the following required arguments were not provided:\n  \
         <COMMAND>...\n\nUsage: qfence-user exec [OPTIONS] -- COMMAND [ARGS]...\n";
    for (words, message) in [
        (&["exec"][..], no_command),
        (&["exec", "--"], no_command),
        (
            &["exec", "--frobnicate", "--", "true"],
            "error: unexpected argument '--frobnicate' found\n\n  tip: to pass '--frobnicate' as a \
             value, use '-- --frobnicate'\n\nUsage: qfence-user exec [OPTIONS] -- COMMAND [ARGS]...\n",
        ),
        (
            &["frobnicate"],
            "error: unrecognized subcommand 'frobnicate'\n\nUsage: qfence-user <COMMAND>\n",
        ),
        (
            &["rm"],
            "error: the following required arguments were not provided:\n  <NAME>...\n\n\
             Usage: qfence-user rm <NAME>...\n",
        ),
        (
            &["ps", "--frobnicate"],
            "error: unexpected argument '--frobnicate' found\n\nUsage: qfence-user ps [OPTIONS]\n",
        ),
    ] {
        let mut command = Command::new(qfence()?);
        command.args(words);
        let ended = to_end(command)?;
        assert_eq!(ended.code(), Some(125), "{ended:?}");
        let hint = "\nFor more information, try '--help'.\n";
        assert_eq!(ended.stderr, format!("{message}{hint}"));
    }
    Ok(())
}

#[test]
fn the_log_must_be_writable() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (dir, below) = (
        dir.path().display().to_string(),
        dir.path().join("missing/log").display().to_string(),
    );
    for (path, why) in [
        (&dir, "Is a directory (os error 21)"),
        (&below, "No such file or directory (os error 2)"),
    ] {
        let message = format!("qfence: error: cannot open the log {path}: {why}");
        assert_refused(&["--log", path], &message)?;
    }
    Ok(())
}

#[test]
fn a_limit_is_enforced_or_refused() -> Result<()> {
    let mount = remains::cgroup2_mount()?;
    let there = fs::read_to_string(mount.join("cgroup.controllers"))?;
    let there = there.trim();
    for (option, value, controller, file, applied) in [
        ("--memory-max", "1G", "memory", "memory.max", "1073741824"),
        ("--cpu-max", "150%", "cpu", "cpu.max", "150000 100000"),
        ("--pids-max", "20", "pids", "pids.max", "20"),
    ] {
        if there.split_whitespace().any(|name| name == controller) {
            let fence = Fence::new("limit")?.with(&[option, value]);
            let mut shell = Shell::start(fence.command(&Namespace::new()?, "sh"))?;
            let set = fs::read_to_string(remains::cgroup(fence.name())?.join(file))?;
            assert_eq!(set.trim(), applied);
            shell.close_input();
            shell.wait()?;
        } else {
            let message = format!(
                "qfence: error: {option} cannot be enforced: the cgroup2 hierarchy at {} has no \
                 {controller} controller (it has: {}); on a hybrid host the controller may be \
                 mounted as cgroup v1",
                mount.display(),
                if there.is_empty() { "none" } else { there }
            );
            assert_refused(&[option, value], &message)?;
        }
    }
    Ok(())
}

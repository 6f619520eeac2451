//! What a process makes large or slow costs the supervisor nothing.

use std::{
    fs,
    io::Write as _,
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use tests::{
    fence::{Fence, qfence},
    memory::{Memory, forget_peak},
    run::to_end,
    shell::Shell,
    world::World,
};

use super::{QEMU, hostile};

/// The memory that the supervisor may use in addition to its memory at rest, in kB.
const GROWTH: u64 = 16 * 1024;

#[test]
fn arguments_without_end_cost_the_supervisor_nothing() -> Result<()> {
    let world = World::new()?;
    let hostile = hostile(QEMU)?;
    let fence = Fence::new("arguments")?.with(&["--user", "nobody"]);
    let mut shell = Shell::start(fence.command(&world.host, "sh"))?;
    shell.attempt(&["udp/127.0.0.1/9"])?;
    fence.await_refusal(|refusal| refusal.port == 9)?;
    forget_peak(shell.started())?;
    let resting = Memory::of(shell.started())?.resident;
    shell.ask(&hostile.line("long:50331648 send:10 rest:3000"))?;
    let refusal = fence.await_refusal(|refusal| refusal.port == 10)?;
    assert_eq!(refusal.command, "qemu-system-x86", "{refusal:?}");
    let most = Memory::of(shell.started())?.peak;
    assert!(most <= resting + GROWTH, "{resting} kB, then {most} kB");
    Ok(())
}

#[test]
fn a_process_that_nobody_can_look_into_stalls_nothing() -> Result<()> {
    let world = World::new()?;
    let hostile = hostile(QEMU)?;
    let fence = Fence::new("mute")?.with(&["--user", "root"]);
    let mut shell = Shell::start(fence.command(&world.host, "sh"))?;
    let mount = hostile.directory().join("mount");
    fs::create_dir(&mount)?;
    let line = hostile.line(&format!("mute:{}", mount.display()));
    let go = hostile.directory().join("go").display().to_string();
    shell.tell(&format!("mkfifo {go}; {line} <{go} & exec 9>{go}"))?;
    assert_eq!(shell.next_line()?, "stuck");
    let refusal = fence.await_refusal(|refusal| refusal.port == 9)?;

    // The control: a read of the process waits.
    let mut cat = Command::new("cat")
        .arg(format!("/proc/{}/cmdline", refusal.pid))
        .spawn()?;
    thread::sleep(Duration::from_millis(500));
    assert_eq!(cat.try_wait()?, None, "its arguments can be read");

    shell.attempt(&["udp/127.0.0.1/10"])?;
    fence.await_refusal(|refusal| refusal.port == 10)?;
    // Commands that examine all fences do not wait either.
    let mut ps = Command::new(qfence()?);
    ps.args(["ps", "--json"]);
    assert_eq!(to_end(ps)?.code(), Some(0));
    shell.ask("exec 9>&-; wait")?;
    cat.kill()?;
    cat.wait()?;
    Ok(())
}

/// Makes an executable with a path of maximum length. Each character of it takes four when it is printed.
fn deep(below: &Path, program: &Path, number: usize) -> Result<()> {
    let name = "\x01".repeat(250);
    let mut script = String::from("set -e\n");
    for _ in 0..15 {
        script.push_str(&format!("mkdir -p '{name}'; cd '{name}'\n"));
    }
    script.push_str(&format!(
        "for i in $(seq {number}); do ln {} $i; done; pwd -P >/dev/null\n",
        program.display()
    ));
    let mut shell = Command::new("sh")
        .current_dir(below)
        .stdin(std::process::Stdio::piped())
        .spawn()?;
    shell
        .stdin
        .take()
        .context("a pipe")?
        .write_all(script.as_bytes())?;
    assert!(shell.wait()?.success());
    Ok(())
}

#[test]
fn thousands_of_processes_with_names_of_their_own_do_not_make_it_grow() -> Result<()> {
    const PROCESSES: usize = 1000;
    const ROUNDS: usize = 3;
    let world = World::new()?;
    let hostile = hostile("x")?;
    let below = hostile.directory().join("deep");
    fs::create_dir(&below)?;
    deep(&below, hostile.program(), PROCESSES)?;
    let fence = Fence::new("names")?.with(&["--user", "nobody"]);
    let mut shell = Shell::start(fence.command(&world.host, "sh"))?;
    shell.attempt(&["udp/127.0.0.1/9"])?;
    fence.await_refusal(|refusal| refusal.port == 9)?;
    forget_peak(shell.started())?;
    let resting = Memory::of(shell.started())?.resident;
    let name = "\x01".repeat(250);
    shell.ask(&format!(
        "cd {}; for i in $(seq 15); do cd '{name}'; done",
        below.display()
    ))?;
    let mut after = Vec::new();
    for _ in 0..ROUNDS {
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(5) {
            shell.ask(&format!(
                "for i in $(seq {PROCESSES}); do HOSTILE='send:10 rest:300' ./$i & \
                 [ $((i % 50)) != 0 ] || wait; done; wait"
            ))?;
        }
        after.push(Memory::of(shell.started())?.resident);
    }
    let most = Memory::of(shell.started())?.peak;
    assert!(
        most <= resting + GROWTH,
        "{resting} kB, then {after:?}, at most {most} kB"
    );
    let text = fs::read_to_string(fence.log())?;
    let longest = text.lines().map(str::len).max().unwrap_or(0);
    assert!(longest < 8192, "a line of {longest} bytes");
    assert!(text.contains(r#"…""#), "what is cut off is marked");
    Ok(())
}

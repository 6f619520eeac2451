//! Many fences, beside each other and one after the other.

use std::{fs, path::PathBuf, process::Command};

use anyhow::Result;
use tests::{
    fence::{Fence, qfence, unique_name},
    listener::Listeners,
    namespace::NOBODY,
    probe, remains,
    run::{fenced, to_end},
    shell::Shell,
    world::World,
};

const PORT: u16 = 8080;

#[test]
fn twenty_at_a_time_refuse_and_log_each_its_own() -> Result<()> {
    let world = World::new()?;
    let services = Listeners::everywhere(&world.host, PORT)?;
    let fences = (0..20)
        .map(|_| Ok(Fence::new("many")?.with(&["--user", "nobody"])))
        .collect::<Result<Vec<_>>>()?;
    let mut shells = Vec::new();
    for fence in &fences {
        shells.push(Shell::start(fence.command(&world.host, "sh"))?);
    }
    for fence in &fences {
        remains::ensure_whole(fence.name())?;
    }

    let own = |number: usize| format!("tcp/127.0.1.{number}/{PORT}");
    let program = probe::program()?;
    // All at the same time: each is told before the first is asked for its answer.
    for (number, shell) in shells.iter_mut().enumerate() {
        let attempts = vec![own(number); number + 1].join(" ");
        shell.tell(&format!("{} {attempts}", program.display()))?;
    }
    for (number, shell) in shells.iter_mut().enumerate() {
        let outcomes: Vec<probe::ProbeResult> = probe::read_lines(&shell.ask("true")?.join("\n"))?;
        assert_eq!(outcomes.len(), number + 1);
        for outcome in outcomes {
            assert!(outcome.failed_with("ECONNREFUSED"), "{outcome:?}");
            assert_eq!(outcome.probe, own(number));
        }
    }
    assert_eq!(services.arrivals(), []);
    // Nobody fenced is refused on their account.
    let outside = probe::run_as(NOBODY, &world.host, &[&own(0), &own(19)])?;
    assert!(
        outside.iter().all(probe::ProbeResult::is_reached),
        "{outside:?}"
    );

    for (number, (fence, mut shell)) in fences.iter().zip(shells).enumerate() {
        shell.close_input();
        assert_eq!(shell.wait_for_code()?, 0);
        let refusals = fence.refusals()?;
        let told: u64 = refusals.iter().map(|refusal| refusal.count).sum();
        assert_eq!(told, number as u64 + 1, "{refusals:#?}");
        for refusal in refusals {
            assert_eq!(refusal.fence, fence.name());
            assert_eq!(refusal.destination, format!("127.0.1.{number}"));
        }
        remains::ensure_none(fence.name())?;
    }
    Ok(())
}

#[test]
fn two_hundred_in_sequence_leave_nothing() -> Result<()> {
    let fence = Fence::new("again")?.with(&["--user", "nobody"]);
    for round in 1..=200 {
        let ended = to_end(fenced(&fence, &["true"]))?;
        assert_eq!(
            (ended.code(), ended.stderr.as_str()),
            (Some(0), ""),
            "{round}"
        );
        remains::ensure_none(fence.name())?;
    }
    Ok(())
}

#[test]
fn without_a_name_each_gets_one_of_its_own() -> Result<()> {
    let dir = tempfile::tempdir()?;
    tests::workspace::make_readable(dir.path())?;
    // The name is made from the command's; nobody else has a command of this one.
    let label = unique_name("unnamed");
    let program = dir.path().join(&label);
    fs::write(&program, "#!/bin/sh\nexec sh\n")?;
    tests::workspace::make_readable(&program)?;
    let names = || -> Result<Vec<PathBuf>> {
        let all = fs::read_dir(remains::cgroup(&label)?.with_file_name(""))?;
        let all: Vec<PathBuf> = all.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
        let is_ours = |path: &PathBuf| path.to_string_lossy().contains(&label);
        Ok(all.into_iter().filter(is_ours).collect())
    };
    let mut shells = Vec::new();
    for count in 1..=3 {
        let mut command = Command::new(qfence()?);
        command
            .args(["exec", "--user", "nobody", "--"])
            .arg(&program);
        shells.push(Shell::start(command)?);
        assert_eq!(names()?.len(), count);
    }
    for mut shell in shells {
        shell.close_input();
        assert_eq!(shell.wait_for_code()?, 0);
    }
    assert!(names()?.is_empty());
    Ok(())
}

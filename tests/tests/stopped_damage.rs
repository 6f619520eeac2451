//! What is taken away from a fence while its job is stopped is reported all the same, and what runs in it is ended if
//! that was asked for.

use std::{fs, process::Command, thread, time::Duration};

use anyhow::{Result, ensure};
use tests::{
    fence::Fence,
    job::{ensure_ended, ensure_no_stand_in, launch, stand_ins, supervisor, wait_for_state},
    remains,
    run::{to_end, wait_until},
    shell::state_of,
    terminal::{PROMPT, Terminal},
};

/// A job that has stopped itself, and a process beside it that has not stopped.
struct Stopped {
    terminal: Terminal,
    fence: Fence,
    supervisor: u32,
}

impl Stopped {
    fn new(label: &str, options: &[&str]) -> Result<Self> {
        let mut terminal = Terminal::start()?;
        let fence = Fence::new(label)?.with(&["--user", "nobody"]).with(options);
        let stops = "sh -c 'sleep 1000 & kill -STOP $$; read line; kill $!; exit 3'";
        launch(&mut terminal, &fence, stops)?;
        terminal.expect(PROMPT)?;
        let supervisor = supervisor(&fence)?;
        wait_for_state(supervisor, 'T')?;
        assert_eq!(stand_ins(&fence)?.len(), 1);
        Ok(Self {
            terminal,
            fence,
            supervisor,
        })
    }

    fn pin(&self, hook: &str) -> String {
        format!("/sys/fs/bpf/qfence/{}/{hook}", self.fence.name())
    }

    fn detach(&self, hook: &str) -> Result<()> {
        let mut bpftool = Command::new("bpftool");
        bpftool.args(["link", "detach", "pinned", &self.pin(hook)]);
        let ended = to_end(bpftool)?;
        ensure!(ended.code() == Some(0), "{ended:?}");
        Ok(())
    }

    fn expect_report(&mut self, of: &str, what_follows: &str) -> Result<String> {
        let whole = format!(
            "qfence: error: the fence {} is not whole: ",
            self.fence.name()
        );
        let before = self.terminal.expect(&whole)?;
        self.terminal.expect(&format!("{of}; {what_follows}"))?;
        Ok(before)
    }
}

#[test]
fn damage_of_a_stopped_job_is_reported() -> Result<()> {
    let mut stopped = Stopped::new("stopped-damage", &[])?;
    // The control: a whole fence is not reported.
    thread::sleep(Duration::from_millis(2500));
    let shown = stopped.terminal.take(Duration::ZERO)?;
    assert!(shown.is_empty(), "{:?}", String::from_utf8_lossy(&shown));

    let what_follows = format!("end it with `qfence-user rm {}`", stopped.fence.name());
    fs::remove_file(stopped.pin("connect4"))?;
    stopped.expect_report(
        "the pin of its link for connect4 was removed: the link lasts only as long as the supervisor lives",
        &what_follows,
    )?;
    stopped.detach("egress")?;
    stopped.expect_report(
        "its eBPF program for egress is detached: this hook is NOT FENCED",
        &what_follows,
    )?;
    assert_eq!(state_of(stopped.supervisor), Some('T'));
    stopped.terminal.type_line("fg")?;
    stopped.terminal.wait_for_foreground(stopped.supervisor)?;
    ensure_no_stand_in(&stopped.fence)?;
    stopped.terminal.press(b'\r')?;
    stopped.terminal.expect(PROMPT)?;
    ensure_ended(&mut stopped.terminal, &stopped.fence, 3)
}

/// Waits until all that ran in the fence is gone, and the supervisor after it, without anybody at the terminal.
fn ensure_all_end(stopped: &mut Stopped, pids: &[u32]) -> Result<()> {
    wait_until("what ran in the fence and the supervisor are gone", || {
        let lives = |pid: &u32| state_of(*pid).is_some_and(|state| state != 'Z');
        Ok(!pids.iter().chain([&stopped.supervisor]).any(lives))
    })?;
    remains::ensure_none(stopped.fence.name())?;
    ensure_no_stand_in(&stopped.fence)?;
    let shown = stopped.terminal.run("wait %1; echo status=$?")?;
    ensure!(shown.contains("status=125\r\n"), "{shown:?}");
    Ok(())
}

#[test]
fn what_runs_in_the_fence_of_a_stopped_job_is_ended_when_it_is_damaged() -> Result<()> {
    for hook in ["connect6", "device"] {
        let mut stopped = Stopped::new("stopped-kill", &["--on-damage", "kill"])?;
        let pids = remains::pids(stopped.fence.name())?;
        assert_eq!(pids.len(), 2);
        let of = if hook == "device" {
            stopped.detach(hook)?;
            format!("its eBPF program for {hook} is detached")
        } else {
            fs::remove_file(stopped.pin(hook))?;
            format!("the pin of its link for {hook} was removed")
        };
        stopped.terminal.expect(&of)?;
        stopped.terminal.expect("its processes are killed")?;
        ensure_all_end(&mut stopped, &pids)?;
    }
    Ok(())
}

#[test]
fn a_command_that_leaves_the_cgroup_of_a_stopped_job_is_ended_too() -> Result<()> {
    let mut stopped = Stopped::new("stopped-left", &["--on-damage", "kill"])?;
    let pids = remains::pids(stopped.fence.name())?;
    let command = pids.iter().find(|pid| state_of(**pid) == Some('T'));
    let root = remains::cgroup2_mount()?.join("cgroup.procs");
    fs::write(root, command.map(u32::to_string).unwrap_or_default())?;
    stopped.expect_report(
        "the command has left its cgroup: the sockets that it makes are NOT FENCED",
        "its processes are killed",
    )?;
    ensure_all_end(&mut stopped, &pids)
}

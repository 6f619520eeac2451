//! Makes the attempts of a section, outside and inside.

use std::collections::HashMap;

use anyhow::{Context as _, Result, ensure};
use qfence_user::probe::{Ending, ProbeResult};
use tests::{
    capture::{Seen, list},
    fence::{Fence, verifier},
    namespace::NOBODY,
    probe::{output, read_lines},
    run::without_sudo,
    shell::Shell,
};

use super::{
    case::{Case, Control, Who, cases},
    scene::Scene,
};
use crate::attach::scene::{Attached, Place};

/// How long a step of an attempt may take, in milliseconds. Whoever is reached answers at once.
const LIMIT: &str = "300";

/// What came of one attempt.
struct Made {
    outcome: ProbeResult,
    arrived: bool,
    arrived_outside: bool,
    seen: Vec<Seen>,
}

/// How a shell gets into a fence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    /// `exec` starts it.
    Exec,
    /// It runs already, in a cgroup to which `attach` attaches the fence.
    Attach,
}

/// Makes every attempt outside, where it must get through, and inside, where it must be refused, and
/// nothing may be seen of it.
pub(crate) fn refused(section: &'static str) -> Result<()> {
    refused_in(Start::Exec, section)
}

/// As [`refused`].
pub(crate) fn refused_in(start: Start, section: &'static str) -> Result<()> {
    let cases = cases(section)?;
    let scene = Scene::new()?;
    let mut wrong = Vec::new();
    for case in &cases {
        let result = outside(&scene, case)?;
        let through = match case.control {
            Control::Arrives => result.arrived || result.outcome.ending == Ending::Reached,
            Control::IsSeenOn(device) => result.seen.iter().any(|seen| seen.device == device),
        };
        if !through {
            wrong.push(format!("control: {case}: {}", result.describe()));
        }
    }
    scene.capture.settle()?;
    let mut inside = Inside::new(&scene, start);
    for case in &cases {
        let result = inside.make(case)?;
        if result.arrived
            || !astray(case, &result.seen).is_empty()
            || !case.is_refused(&result.outcome)
        {
            wrong.push(format!("fenced: {case}: {}", result.describe()));
        }
    }
    conclude(&cases, &wrong)
}

/// Makes every attempt outside, where it must get through, and inside, where the sender must be told
/// that it is refused, and get no answer. What the host sees of it is not asked.
pub(crate) fn unanswered(section: &'static str) -> Result<()> {
    let cases = cases(section)?;
    let scene = Scene::new()?;
    let mut wrong = Vec::new();
    let mut inside = Inside::new(&scene, Start::Exec);
    for case in &cases {
        let (without, with) = (outside(&scene, case)?, inside.make(case)?);
        if !(without.arrived || without.outcome.ending == Ending::Reached) {
            wrong.push(format!("control: {case}: {}", without.describe()));
        }
        if !case.is_refused(&with.outcome) {
            wrong.push(format!("fenced: {case}: {}", with.describe()));
        }
    }
    conclude(&cases, &wrong)
}

/// Makes every attempt outside and inside, and each must get through, to the internet.
pub(crate) fn working_in(start: Start, section: &'static str) -> Result<()> {
    let cases = cases(section)?;
    let scene = Scene::new()?;
    let mut wrong = Vec::new();
    let mut inside = Inside::new(&scene, start);
    for case in &cases {
        let (without, with) = (outside(&scene, case)?, inside.make(case)?);
        for (label, result) in [("control", &without), ("fenced", &with)] {
            if !(result.arrived_outside || result.outcome.ending == Ending::Reached) {
                wrong.push(format!("{label}: {case}: {}", result.describe()));
            }
        }
        if without.outcome.ending != with.outcome.ending {
            wrong.push(format!(
                "differs: {case}: {} / {}",
                without.describe(),
                with.describe()
            ));
        }
    }
    conclude(&cases, &wrong)
}

fn conclude(cases: &[Case], wrong: &[String]) -> Result<()> {
    ensure!(
        wrong.is_empty(),
        "{} of {} cases:\n{}",
        wrong.len(),
        cases.len(),
        wrong.join("\n")
    );
    Ok(())
}

/// Makes an attempt, and watches the host.
fn watched(scene: &Scene, make: impl FnOnce() -> Result<ProbeResult>) -> Result<Made> {
    scene.capture.take()?;
    let before = (scene.arrivals().len(), scene.arrivals_outside().len());
    let outcome = make()?;
    let after = (scene.arrivals().len(), scene.arrivals_outside().len());
    Ok(Made {
        outcome,
        arrived: after.0 > before.0,
        arrived_outside: after.1 > before.1,
        seen: scene.capture.take()?,
    })
}

/// What is not of the way to a decoy.
fn astray<'a>(case: &Case, seen: &'a [Seen]) -> Vec<&'a Seen> {
    let ends = |seen: &Seen| [Some(seen.source), Some(seen.destination)];
    let strays = |seen: &&Seen| case.decoy.is_none() || !ends(seen).contains(&case.decoy);
    seen.iter().filter(strays).collect()
}

fn outside(scene: &Scene, case: &Case) -> Result<Made> {
    watched(scene, || {
        let words = words(scene, case)?;
        let host = &scene.world.host;
        let mut command = match case.who {
            Who::Nobody | Who::Python => host.command_as(NOBODY, &words[0]),
            _ => host.command(&words[0]),
        };
        the_only(read_lines(&output(command.args(&words[1..]))?)?)
    })
}

/// The program that makes the probe, and its arguments.
fn words(scene: &Scene, case: &Case) -> Result<Vec<String>> {
    let mut words = match case.who {
        Who::Python => vec![
            "/usr/bin/python3".to_owned(),
            scene.python.display().to_string(),
        ],
        _ => vec![verifier()?.display().to_string(), "probe".to_owned()],
    };
    words.extend(["--timeout-ms", LIMIT].map(str::to_owned));
    if matches!(case.who, Who::RootMade | Who::Annex) {
        words.extend(["--as".to_owned(), format!("{}:{}", NOBODY.uid, NOBODY.gid)]);
    }
    if matches!(case.who, Who::Annex | Who::AnnexRaw) {
        words.extend(["--netns".to_owned(), scene.annex.display().to_string()]);
    }
    words.push(case.spec.clone());
    Ok(words)
}

fn the_only(mut outcomes: Vec<ProbeResult>) -> Result<ProbeResult> {
    ensure!(outcomes.len() <= 1, "more than one outcome: {outcomes:?}");
    outcomes.pop().context("no outcome")
}

/// A fence for everybody who needs one, with a shell in it.
struct Inside<'a> {
    scene: &'a Scene,
    start: Start,
    fences: HashMap<&'static [&'static str], Fenced>,
}

/// A shell in a fence.
struct Fenced {
    shell: Shell,
    _attached: Option<(Attached, Place)>,
    _fence: Fence,
}

impl<'a> Inside<'a> {
    fn new(scene: &'a Scene, start: Start) -> Self {
        let fences = HashMap::new();
        Self {
            scene,
            start,
            fences,
        }
    }

    fn make(&mut self, case: &Case) -> Result<Made> {
        let scene = self.scene;
        let shell = self.shell(case.who)?;
        watched(scene, || {
            let line = words(scene, case)?.join(" ");
            the_only(read_lines(&shell.ask(&line)?.join("\n"))?)
        })
    }

    fn shell(&mut self, who: Who) -> Result<&mut Shell> {
        let options: &[&str] = match who {
            Who::Nobody | Who::Python => &["--user", "nobody"],
            Who::Root => &[],
            Who::RootRaw | Who::RootMade => &["--allow-raw"],
            // Whose namespace is made outside.
            Who::Annex => &["--allow-foreign-netns"],
            Who::AnnexRaw => &["--allow-raw", "--allow-foreign-netns"],
        };
        if !self.fences.contains_key(options) {
            let fenced = match self.start {
                Start::Exec => self.exec(options)?,
                Start::Attach => self.attach(options)?,
            };
            self.fences.insert(options, fenced);
        }
        let entry = self.fences.get_mut(options);
        entry.map(|fenced| &mut fenced.shell).context("a fence")
    }

    fn exec(&self, options: &[&str]) -> Result<Fenced> {
        let fence = Fence::new("matrix")?.with(options);
        let mut command = fence.command(&self.scene.world.host, "sh");
        without_sudo(&mut command);
        Ok(Fenced {
            shell: Shell::start(command)?,
            _attached: None,
            _fence: fence,
        })
    }

    fn attach(&self, options: &[&str]) -> Result<Fenced> {
        let host = &self.scene.world.host;
        let fence = Fence::new("matrix")?;
        let place = Place::new(&fence)?;
        // The user is that of the target, and no option of `attach`.
        let (command, options) = match options {
            ["--user", "nobody", rest @ ..] => (host.command_as(NOBODY, "sh"), rest),
            all => (host.command("sh"), all),
        };
        let mut shell = Shell::start(command)?;
        place.add(shell.pid()?)?;
        let path = place.path().display().to_string();
        let words = [&["--cgroup", &path], options].concat();
        let attached = Attached::start(&fence, host, &words)?;
        Ok(Fenced {
            shell,
            _attached: Some((attached, place)),
            _fence: fence,
        })
    }
}

impl Made {
    fn describe(&self) -> String {
        let ProbeResult {
            ending,
            step,
            errno,
            reply,
            ..
        } = &self.outcome;
        let step = step.as_ref().map(ToString::to_string);
        let words = [&step, errno, reply].map(|word| word.as_deref().unwrap_or("-").trim());
        format!(
            "{ending:?} {}{}; seen: {}",
            words.join(" "),
            if self.arrived { ", ARRIVED" } else { "" },
            list(&self.seen)
        )
    }
}

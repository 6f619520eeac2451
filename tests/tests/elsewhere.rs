//! A fence whose cgroup a command does not see is not dead: whoever shares its pins or its description, and is shown another
//! part of the cgroup tree, leaves it alone.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};
use tests::{
    fence::qfence,
    listener::Listeners,
    mounts::{bind, mount_new},
    namespace::{NOBODY, Namespace},
    private::Private,
    probe,
    run::{Ended, to_end, without_sudo},
    shell::Shell,
};

const PORT: u16 = 8080;
const TO_HOST: &str = "tcp/127.0.0.1/8080";
/// Where the cgroup tree is mounted in a [`Private`].
const TREE: &str = "/mnt";
const OF_ANOTHER_PART: &str = "is of another part of the cgroup tree";

/// A host, and a container on it that is shown a part of the cgroup tree alone.
struct Scene {
    container: Namespace,
    part: PathBuf,
    /// Removed after what is in it.
    host: Private,
}

impl Scene {
    /// The container's mounts are the host's, but for the cgroup tree and what `change` does.
    fn new(change: impl FnOnce() -> Result<()> + Send) -> Result<Self> {
        let host = Private::new()?;
        host.namespace().ip("link set lo up")?;
        let part = host.cgroup().join("part");
        fs::create_dir(&part)?;
        let container = host.namespace().run(|| {
            Namespace::with_mounts(|| {
                bind(&Path::new(TREE).join("part"), TREE)?;
                change()
            })
        })?;
        Ok(Self {
            container,
            part,
            host,
        })
    }

    fn qfence(&self, place: &Namespace, words: &[&str]) -> Result<Ended> {
        let mut command = place.command(qfence()?);
        without_sudo(command.args(words));
        to_end(command)
    }

    /// A shell in a fence of that name on the host.
    fn shell(&self, name: &str) -> Result<Shell> {
        let mut command = self.host.qfence()?;
        command.args(["exec", "--name", name, "--user", "nobody", "--log", "none"]);
        without_sudo(command.args(["--", "sh"]));
        Shell::start(command)
    }

    fn orphan(&self, name: &str) -> Result<Shell> {
        let shell = self.shell(name)?;
        shell.kill_supervisor()?;
        Ok(shell)
    }

    /// The paths of what there is of a fence beside its cgroup.
    fn remains(&self, name: &str) -> Result<Vec<String>> {
        let all = [
            format!("/sys/fs/bpf/qfence/{name}/connect4"),
            format!("/sys/fs/bpf/qfence/{name}"),
            format!("/run/qfence/{name}.policy"),
            format!("/run/qfence/{name}.log"),
            format!("/run/qfence/{name}.json"),
        ];
        let there = || {
            Ok(all
                .into_iter()
                .filter(|path| Path::new(path).exists())
                .collect())
        };
        self.host.namespace().run(there)
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        let fences = self.part.join("qfence");
        for directory in fs::read_dir(&fences).into_iter().flatten().flatten() {
            let _ = fs::remove_dir(directory.path());
        }
        let _ = fs::remove_dir(fences);
        let _ = fs::remove_dir(&self.part);
    }
}

fn ensure_refused(shell: &mut Shell) -> Result<()> {
    let outcome = &shell.attempt(&[TO_HOST])?[0];
    assert!(outcome.failed_with("ECONNREFUSED"), "{outcome:?}");
    Ok(())
}

#[test]
fn commands_that_see_another_part_of_the_cgroup_tree_leave_it_alone() -> Result<()> {
    let scene = Scene::new(|| Ok(()))?;
    let services = Listeners::everywhere(scene.host.namespace(), PORT)?;
    let control = probe::run_as(NOBODY, scene.host.namespace(), &[TO_HOST])?;
    assert!(control[0].is_reached(), "{control:?}");
    let mut orphan = scene.orphan("orphan")?;
    let mut running = scene.shell("running")?;
    ensure_refused(&mut orphan)?;

    let ps = scene.qfence(&scene.container, &["ps", "--json"])?;
    assert_eq!(ps.code(), Some(0), "{ps:?}");
    let rows: Vec<serde_json::Value> = serde_json::from_str(&ps.stdout)?;
    let rows: Vec<_> = rows
        .iter()
        .map(|row| (&row["name"], &row["state"]))
        .collect();
    let (orphans, runnings) = ("orphan".into(), "running".into());
    let elsewhere = "elsewhere".into();
    assert_eq!(rows, [(&orphans, &elsewhere), (&runnings, &elsewhere)]);
    for name in ["orphan", "running"] {
        assert!(
            ps.stderr.contains(&format!(
                "the fence {name} is in another part of the cgroup tree"
            )),
            "{ps:?}"
        );
        for words in [
            &["rm", "-t", "0", name][..],
            &["set", name, "--allow", "host"],
            &[
                "exec", "--name", name, "--user", "nobody", "--", "echo", "ran",
            ],
        ] {
            let ended = scene.qfence(&scene.container, words)?;
            assert_eq!((ended.code(), &*ended.stdout), (Some(125), ""), "{ended:?}");
            assert!(
                ended.stderr.contains("another part of the cgroup tree"),
                "{ended:?}"
            );
        }
    }
    // Its own fences are nobody else's affair, and clear nothing.
    let words = [
        "exec", "--name", "own", "--user", "nobody", "--", "echo", "ran",
    ];
    let ended = scene.qfence(&scene.container, &words)?;
    assert_eq!(
        (ended.code(), &*ended.stdout),
        (Some(0), "ran\n"),
        "{ended:?}"
    );
    assert!(!ended.stderr.contains("clearing"), "{ended:?}");

    for name in ["orphan", "running"] {
        assert_eq!(scene.remains(name)?.len(), 5, "{name}");
    }
    ensure_refused(&mut orphan)?;
    ensure_refused(&mut running)?;
    assert_eq!(services.arrivals().len(), 1, "the control alone");
    // Where they were made they are what they were.
    let ps = scene.qfence(scene.host.namespace(), &["ps"])?;
    assert!(
        ps.stdout.contains("orphaned") && ps.stdout.contains("running"),
        "{ps:?}"
    );
    assert_eq!(ps.stderr, "");
    let rm = scene.qfence(
        scene.host.namespace(),
        &["rm", "-t", "0", "orphan", "running"],
    )?;
    assert_eq!(rm.code(), Some(0), "{rm:?}");
    assert_eq!(scene.remains("orphan")?, [""; 0]);
    Ok(())
}

#[test]
fn a_cgroup_of_the_same_name_does_not_make_them_its_own() -> Result<()> {
    let scene = Scene::new(|| Ok(()))?;
    let _services = Listeners::everywhere(scene.host.namespace(), PORT)?;
    let mut orphan = scene.orphan("orphan")?;
    fs::create_dir_all(scene.part.join("qfence/orphan"))?;
    let ps = scene.qfence(&scene.container, &["ps"])?;
    assert_eq!(ps.code(), Some(0), "{ps:?}");
    assert!(!scene.part.join("qfence/orphan").exists(), "{ps:?}");
    assert!(ps.stderr.contains(OF_ANOTHER_PART), "{ps:?}");
    assert_eq!(scene.remains("orphan")?.len(), 5);
    ensure_refused(&mut orphan)
}

#[test]
fn what_is_known_of_it_alone_is_left_too() -> Result<()> {
    // /run is shared, and the pins are not.
    let scene = Scene::new(|| mount_new("bpf", "/sys/fs/bpf", None))?;
    let _orphan = scene.orphan("orphan")?;
    let words = [
        "exec", "--name", "orphan", "--user", "nobody", "--", "echo", "ran",
    ];
    for words in [&["ps"][..], &words] {
        let ended = scene.qfence(&scene.container, words)?;
        assert!(!ended.stdout.contains("ran"), "{ended:?}");
        assert!(
            ended.stderr.contains("another part of the cgroup tree"),
            "{ended:?}"
        );
        assert_eq!(scene.remains("orphan")?.len(), 5, "{ended:?}");
    }
    Ok(())
}

#[test]
fn a_cgroup_namespace_is_another_part_of_the_tree() -> Result<()> {
    let scene = Scene::new(|| Ok(()))?;
    let _services = Listeners::everywhere(scene.host.namespace(), PORT)?;
    let mut orphan = scene.orphan("orphan")?;
    let ps = format!(
        "echo $$ > {TREE}/part/cgroup.procs && exec unshare --cgroup --mount sh -c \
         'umount -l {TREE} && mount -t cgroup2 cgroup2 {TREE} && {} ps'",
        qfence()?.display()
    );
    let mut command = scene.host.namespace().command("sh");
    command.args(["-c", &ps]);
    let ended = to_end(command)?;
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    assert!(ended.stdout.contains("elsewhere"), "{ended:?}");
    assert_eq!(scene.remains("orphan")?.len(), 5, "{ended:?}");
    ensure_refused(&mut orphan)
}

#[test]
fn what_cannot_be_told_is_said_and_left() -> Result<()> {
    let scene = Scene::new(|| Ok(()))?;
    let _services = Listeners::everywhere(scene.host.namespace(), PORT)?;
    let mut orphan = scene.orphan("orphan")?;
    let mut command: Command = scene.container.command("setpriv");
    command.args([
        "--bounding-set",
        "-dac_read_search",
        "--inh-caps",
        "-dac_read_search",
    ]);
    command.arg(qfence()?).arg("ps");
    let ended = to_end(command)?;
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    assert!(
        ended.stderr.contains("it is unknown whether it exists"),
        "{ended:?}"
    );
    assert_eq!(scene.remains("orphan")?.len(), 5, "{ended:?}");
    ensure_refused(&mut orphan)
}

#[test]
fn what_a_dead_one_left_is_cleared_from_anywhere_once_its_cgroup_is_gone() -> Result<()> {
    let scene = Scene::new(|| Ok(()))?;
    let mut orphan = scene.orphan("dead")?;
    orphan.close_input();
    let cgroup = scene.host.cgroup().join("qfence/dead");
    tests::run::wait_until("its cgroup can be removed", || {
        Ok(fs::remove_dir(&cgroup).is_ok())
    })
    .context("the shell ends with its input")?;
    assert_eq!(scene.remains("dead")?.len(), 5);
    let ps = scene.qfence(&scene.container, &["ps"])?;
    assert!(
        ps.stderr.contains("clearing the remains of the fence dead"),
        "{ps:?}"
    );
    assert_eq!(scene.remains("dead")?, [""; 0]);
    Ok(())
}

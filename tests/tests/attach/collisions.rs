//! The fence's device program and that of an engine. libvirt attaches its own to the cgroup of a guest, and lets no other be
//! there or below. runc shares the cgroup of a container, but replaces the only other program, and detaches several.

use std::{fs, io, path::PathBuf};

use anyhow::Result;
use nix::errno::Errno;
use tests::{fence::Fence, namespace::Namespace, shell::Shell};

use super::{
    device_program::{DeviceProgram, MULTI, OVERRIDE, attached},
    scene::{self, Place, attach},
};

/// The warning of a fence without a device program.
const LEFT_OUT: &str = "another program judges the devices of this cgroup alone";

/// Where the fence is, seen from the cgroup of the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Above,
    Same,
    Below,
}

/// A cgroup with one below, and a shell in the lower.
struct Scene {
    fence: Fence,
    place: Place,
    inner: PathBuf,
    host: Namespace,
    shell: Shell,
}

impl Scene {
    fn new() -> Result<Self> {
        let fence = Fence::new("collision")?;
        let place = Place::new(&fence)?;
        let inner = place.path().join("inner");
        fs::create_dir(&inner)?;
        let host = Namespace::new()?;
        let mut shell = Shell::start(host.command("sh"))?;
        fs::write(inner.join("cgroup.procs"), shell.pid()?.to_string())?;
        Ok(Self {
            fence,
            place,
            inner,
            host,
            shell,
        })
    }

    /// The cgroups of the fence and of the engine.
    fn cgroups(&self, at: At) -> (PathBuf, PathBuf) {
        let outer = || self.place.path().to_owned();
        match at {
            At::Above => (outer(), self.inner.clone()),
            At::Same => (self.inner.clone(), self.inner.clone()),
            At::Below => (self.inner.clone(), outer()),
        }
    }

    /// Attaches the fence. Returns whether it has a device program; if not, that must be said.
    fn attach(&self, at: At) -> Result<bool> {
        let (cgroup, _) = self.cgroups(at);
        let target = ["--detach", "--cgroup", &cgroup.display().to_string()];
        let ended = attach(&self.fence, &self.host, &target)?;
        assert_eq!(ended.code(), Some(0), "{at:?}: {ended:?}");
        let listed = scene::listed(&self.fence)?;
        let is_left_out = ended.stderr.contains(LEFT_OUT);
        assert_eq!(
            listed["open"].to_string().contains("devices"),
            is_left_out,
            "{listed}"
        );
        Ok(!is_left_out)
    }

    /// Whether the shell may open a device.
    fn opens(&mut self, device: &str) -> Result<bool> {
        let command = format!("if ( : <{device} ) 2>/dev/null; then echo yes; else echo no; fi");
        Ok(self.shell.ask(&command)? == ["yes"])
    }

    /// What the programs refuse: the device of the fence, and that of the engine.
    fn assert_refused(&mut self, by_fence: bool, by_engine: bool, what: &str) -> Result<()> {
        assert_eq!(
            !self.opens("/dev/net/tun")?,
            by_fence,
            "{what}: the fence's"
        );
        assert_eq!(!self.opens("/dev/zero")?, by_engine, "{what}: the engine's");
        assert!(self.opens("/dev/null")?, "{what}: control");
        Ok(())
    }

    fn end(self) -> Result<()> {
        scene::remove(&self.fence)?;
        drop(self.shell);
        self.place.remove()
    }
}

fn is_errno(result: io::Result<()>, errno: Errno) -> bool {
    result.is_err_and(|error| error.raw_os_error() == Some(errno as i32))
}

#[test]
fn the_engines_program_is_first_and_the_fence_takes_what_is_left() -> Result<()> {
    for (flags, at, is_whole) in [
        // libvirt's.
        (0, At::Above, true),
        (0, At::Same, false),
        (0, At::Below, false),
        // One that gives way. The kernel would let the fence's replace it below.
        (OVERRIDE, At::Above, true),
        (OVERRIDE, At::Same, false),
        (OVERRIDE, At::Below, false),
        // runc's and systemd's.
        (MULTI, At::Above, true),
        (MULTI, At::Same, true),
        (MULTI, At::Below, true),
    ] {
        let what = format!("flags {flags}, fence {at:?}");
        let mut scene = Scene::new()?;
        scene.assert_refused(false, false, "control")?;
        let (_, cgroup) = scene.cgroups(at);
        let engine = DeviceProgram::load()?;
        engine.attach(&cgroup, flags)?;
        scene.assert_refused(false, true, &what)?;
        assert_eq!(scene.attach(at)?, is_whole, "{what}");
        scene.assert_refused(is_whole, true, &what)?;
        scene::remove(&scene.fence)?;
        scene.assert_refused(false, true, &what)?;
        drop(scene.shell);
        scene.place.remove()?;
    }
    Ok(())
}

#[test]
fn the_fence_is_first_and_the_engine_cannot_take_it_away() -> Result<()> {
    for (flags, at, may_attach, is_heard) in [
        (0, At::Above, true, true),
        // No guest could start there: attach to a cgroup above, or after the start.
        (0, At::Same, false, false),
        // The kernel then runs the fence's program alone there: libvirt's is for its own cgroup.
        (0, At::Below, true, false),
        (OVERRIDE, At::Above, true, true),
        (OVERRIDE, At::Same, false, false),
        (OVERRIDE, At::Below, true, false),
        (MULTI, At::Above, true, true),
        (MULTI, At::Same, true, true),
        (MULTI, At::Below, true, true),
    ] {
        let what = format!("flags {flags}, fence {at:?}");
        let mut scene = Scene::new()?;
        assert!(scene.attach(at)?, "{what}");
        let (_, cgroup) = scene.cgroups(at);
        let engine = DeviceProgram::load()?;
        let made = engine.attach(&cgroup, flags);
        if may_attach {
            made?;
        } else {
            assert!(is_errno(made, Errno::EPERM), "{what}");
        }
        scene.assert_refused(true, is_heard, &what)?;
        scene.end()?;
    }
    Ok(())
}

#[test]
fn runc_neither_replaces_nor_detaches_the_program_of_a_fence() -> Result<()> {
    let mut scene = Scene::new()?;
    let cgroup = scene.inner.clone();
    assert!(scene.attach(At::Same)?);
    // It is the only one: runc replaces that.
    let before = attached(&cgroup)?;
    let [fences] = &before[..] else {
        panic!("{before:?}")
    };
    let engine = DeviceProgram::load()?;
    assert!(is_errno(engine.replace(&cgroup, fences), Errno::ENOENT));
    scene.assert_refused(true, false, "replaced")?;
    // One of several: runc attaches its own, and detaches the others.
    engine.attach(&cgroup, MULTI)?;
    assert!(is_errno(fences.detach(&cgroup), Errno::ENOENT));
    scene.assert_refused(true, true, "detached")?;
    // The control: a program that is attached without a link can be replaced and detached.
    let other = DeviceProgram::load()?;
    other.replace(&cgroup, &engine)?;
    other.detach(&cgroup)?;
    scene.assert_refused(true, false, "control")?;
    scene.end()
}

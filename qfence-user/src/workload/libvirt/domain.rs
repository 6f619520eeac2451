//! Domains of libvirt's system instance. libvirt writes the state of each running domain to /run/libvirt/qemu/NAME.xml
//! and the id of its QEMU to NAME.pid. QEMU has a lock on the latter as long as it lives (`virPidFileAcquirePath` in
//! src/util/virpidfile.c).

use std::{
    fs::File,
    os::unix::ffi::OsStrExt as _,
    path::{Component, Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use nix::{
    fcntl::{FcntlArg, fcntl},
    libc,
    unistd::Pid,
};

use crate::{
    base::paths::Paths,
    workload::{NotRunning, Workload, WorkloadKind, files, living::Living, process},
};

/// Where libvirt keeps the state of running domains.
const RUNNING: &str = "run/libvirt/qemu";

/// The beginnings of the names of a domain's cgroup, before the domain's number: with systemd and without.
const BEGINNINGS: [&str; 2] = [r"machine-qemu\x2d", "qemu-"];

/// Finds the cgroup of a running domain. `hierarchy` is the cgroup that is mounted here.
///
/// # Errors
/// If there is no such domain, it does not run, or its QEMU has no cgroup of its own.
pub(in crate::workload) fn find(name: &str, paths: &Paths, hierarchy: &Path) -> Result<Workload> {
    ensure!(
        files::is_file_name(name),
        "{name:?} is no name of a domain: see `virsh list`"
    );
    let directory = paths.root.join(RUNNING);
    let file = directory.join(format!("{name}.pid"));
    // libvirtd's own driver.pid is in the same directory.
    let is_running = file.exists() && directory.join(format!("{name}.xml")).exists();
    if !is_running {
        return Err(NotRunning(format!(
            "no domain {name:?} runs in libvirt's system instance: see `virsh --connect qemu:///system list`; a domain of \
             qemu:///session runs in the cgroup of who started it, so fence that (`qfence-user exec`)"
        ))
        .into());
    }
    let pid = first(&file).with_context(|| format!("cannot find the QEMU of the domain {name}"))?;
    let living = Living::open(pid)?;
    let cgroup = process::cgroup_of(pid, &paths.proc, hierarchy)?;
    living.ensure_lives()?;
    let own = of_domain(&cgroup).with_context(|| {
        format!(
            "the QEMU of the domain {name} runs in the cgroup {}, which is not its own: let libvirt make cgroups \
             (cgroup_controllers in qemu.conf)",
            cgroup.display()
        )
    })?;
    Ok(Workload {
        kind: WorkloadKind::Domain,
        name: name.to_owned(),
        cgroup: own,
        pid: Some(pid),
    })
}

/// The process whose id is in the file, which must have the lock on it.
fn first(file: &Path) -> Result<Pid> {
    let written = files::pid(file)?;
    let written = written.with_context(|| format!("{} is empty", file.display()))?;
    let holder = holder(&File::open(file)?)
        .with_context(|| format!("cannot query the lock on {}", file.display()))?;
    ensure!(
        holder == Some(written),
        "the process {written} in {} does not have the lock on it, so it is not the QEMU",
        file.display()
    );
    Ok(Pid::from_raw(written))
}

/// The process that has a lock on a file; `None` if there is no lock, or the process is not visible here.
fn holder(file: &File) -> Result<Option<i32>> {
    let mut lock = libc::flock {
        l_type: libc::c_short::try_from(libc::F_WRLCK)?,
        l_whence: libc::c_short::try_from(libc::SEEK_SET)?,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    fcntl(file, FcntlArg::F_GETLK(&mut lock))?;
    let is_locked = libc::c_int::from(lock.l_type) != libc::F_UNLCK;
    Ok((is_locked && lock.l_pid > 0).then_some(lock.l_pid))
}

/// The cgroup of the whole domain among those that have its QEMU: libvirt makes others in it.
fn of_domain(cgroup: &Path) -> Option<PathBuf> {
    let mut own = PathBuf::new();
    for component in cgroup.components() {
        own.push(component);
        if let Component::Normal(name) = component
            && is_domains(name.as_bytes())
        {
            return Some(own);
        }
    }
    None
}

/// Whether a name is `machine-qemu\x2dN\x2dNAME.scope` or `qemu-N-NAME.libvirt-qemu`.
fn is_domains(name: &[u8]) -> bool {
    let rest = BEGINNINGS
        .iter()
        .find_map(|beginning| name.strip_prefix(beginning.as_bytes()));
    let ends = name.ends_with(b".scope") || name.ends_with(b".libvirt-qemu");
    ends && rest.is_some_and(|rest| rest.first().is_some_and(u8::is_ascii_digit))
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        io::{BufRead as _, BufReader},
        process::{Child, Command, Stdio},
    };

    use super::*;

    /// Takes a lock as libvirt does, on the file that is its argument.
    const LOCK: &str = "import fcntl, sys, time\n\
                        file = open(sys.argv[1], 'r+')\n\
                        fcntl.lockf(file, fcntl.LOCK_EX)\n\
                        print('locked', flush=True)\n\
                        time.sleep(1000)";

    /// A process that ends with the test.
    struct Qemu(Child);

    impl Qemu {
        fn with_lock(file: &Path) -> Self {
            let mut python = Command::new("python3");
            python.arg("-c").arg(LOCK).arg(file).stdout(Stdio::piped());
            let mut child = python.spawn().unwrap();
            let mut line = String::new();
            let stdout = child.stdout.take().unwrap();
            BufReader::new(stdout).read_line(&mut line).unwrap();
            assert_eq!(line, "locked\n");
            Self(child)
        }
    }

    impl Drop for Qemu {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    /// A host with a domain, whose QEMU is in a cgroup.
    fn host(cgroup: &str) -> (tempfile::TempDir, Paths, Qemu) {
        let dir = tempfile::tempdir().unwrap();
        let running = dir.path().join(RUNNING);
        fs::create_dir_all(&running).unwrap();
        let file = running.join("my vm.1.pid");
        fs::write(&file, "").unwrap();
        fs::write(running.join("my vm.1.xml"), "<domstatus/>").unwrap();
        let qemu = Qemu::with_lock(&file);
        let pid = qemu.0.id().to_string();
        fs::write(&file, &pid).unwrap();
        let process = dir.path().join("proc").join(pid);
        fs::create_dir_all(&process).unwrap();
        fs::write(process.join("cgroup"), format!("0::{cgroup}\n")).unwrap();
        let paths = Paths {
            root: dir.path().to_owned(),
            proc: dir.path().join("proc"),
            ..Paths::default()
        };
        (dir, paths, qemu)
    }

    const SCOPE: &str = r"machine.slice/machine-qemu\x2d1\x2dmyvm.1.scope";

    #[test]
    fn a_domain_is_found_by_the_lock_of_its_qemu() {
        let (_dir, paths, qemu) = host(&format!("/{SCOPE}/libvirt/emulator"));
        let found = find("my vm.1", &paths, Path::new("/")).unwrap();
        assert_eq!(found.kind, WorkloadKind::Domain);
        assert_eq!(found.cgroup, Path::new(SCOPE));
        assert_eq!(
            found.pid,
            Some(Pid::from_raw(qemu.0.id().try_into().unwrap()))
        );
    }

    #[test]
    fn a_process_without_the_lock_is_not_the_qemu() {
        let (_dir, paths, qemu) = host(&format!("/{SCOPE}/libvirt"));
        let other = Command::new("sleep").arg("1000").spawn().unwrap();
        let other = Qemu(other);
        let file = paths.root.join(RUNNING).join("my vm.1.pid");
        fs::write(&file, other.0.id().to_string()).unwrap();
        let error = find("my vm.1", &paths, Path::new("/")).unwrap_err();
        assert!(
            format!("{error:#}").contains("does not have the lock"),
            "{error:#}"
        );
        fs::write(&file, qemu.0.id().to_string()).unwrap();
        find("my vm.1", &paths, Path::new("/")).unwrap();
        drop(qemu);
        let error = find("my vm.1", &paths, Path::new("/")).unwrap_err();
        assert!(
            format!("{error:#}").contains("does not have the lock"),
            "{error:#}"
        );
    }

    #[test]
    fn a_domain_without_a_cgroup_of_its_own_is_refused() {
        let (_dir, paths, _qemu) = host("/system.slice/libvirtd.service");
        let error = find("my vm.1", &paths, Path::new("/")).unwrap_err();
        assert!(
            error.to_string().contains("which is not its own"),
            "{error}"
        );
        for name in ["", "..", "../my vm.1", "my vm", "driver"] {
            fs::write(paths.root.join(RUNNING).join("driver.pid"), "1").unwrap();
            assert!(find(name, &paths, Path::new("/")).is_err(), "{name}");
        }
    }

    #[test]
    fn the_cgroup_of_a_domain_is_the_one_with_its_number() {
        for (cgroup, own) in [
            (format!("{SCOPE}/libvirt/vcpu0"), Some(SCOPE)),
            (SCOPE.to_owned(), Some(SCOPE)),
            (
                "machine/qemu-12-a.libvirt-qemu/emulator".into(),
                Some("machine/qemu-12-a.libvirt-qemu"),
            ),
            ("system.slice/qemu-guest-agent.service".into(), None),
            (r"machine.slice/machine-lxc\x2d1\x2da.scope".into(), None),
            (String::new(), None),
        ] {
            assert_eq!(of_domain(Path::new(&cgroup)).as_deref(), own.map(Path::new));
        }
    }
}

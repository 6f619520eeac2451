//! Units are found with what systemd 252 answered.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::PathBuf,
};

use super::*;

const SERVICE: &str = "MainPID=652\nControlGroup=/system.slice/web.service\nControlGroupId=@ID@\n\
                       Id=web.service\nLoadState=loaded\nActiveState=active\n";
const MISSING: &str = "MainPID=0\nControlGroup=\nControlGroupId=0\nId=nosuch.service\nLoadState=not-found\n\
                       ActiveState=inactive\n";
const SOCKET: &str = "ControlGroup=/system.slice/dbus.socket\nControlGroupId=0\nId=dbus.socket\n\
                      LoadState=loaded\nActiveState=active\n";

/// A host whose systemctl is a script, with a directory in place of cgroup2.
struct Host(tempfile::TempDir);

impl Host {
    fn new() -> Self {
        let host = Self(tempfile::tempdir().unwrap());
        fs::create_dir_all(host.path("run/systemd/system")).unwrap();
        fs::create_dir_all(host.path("usr/bin")).unwrap();
        fs::create_dir_all(host.path("cgroup/system.slice/web.service")).unwrap();
        fs::create_dir_all(host.path("cgroup/system.slice/dbus.socket")).unwrap();
        host
    }

    fn path(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    /// Lets systemctl do something.
    fn systemctl(&self, script: &str) {
        let path = self.path("usr/bin/systemctl");
        let staged = self.path("staged");
        fs::write(&staged, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&staged, fs::Permissions::from_mode(0o755)).unwrap();
        fs::rename(staged, path).unwrap();
    }

    fn answers(&self, answer: &str) {
        self.systemctl(&format!("cat <<'END'\n{answer}END"));
    }

    fn id(&self) -> u64 {
        let directory = self.path("cgroup/system.slice/web.service");
        directory.metadata().unwrap().ino()
    }

    fn find(&self, name: &str) -> Result<Workload> {
        let paths = Paths {
            root: self.0.path().to_owned(),
            ..Paths::default()
        };
        find(
            name,
            &paths,
            &Hierarchy::at(self.path("cgroup"), "/".into()),
        )
    }

    fn error(&self, name: &str) -> String {
        format!("{:#}", self.find(name).unwrap_err())
    }
}

#[test]
fn a_service_is_found_by_what_systemd_answers() {
    let host = Host::new();
    host.answers(&SERVICE.replace("@ID@", &host.id().to_string()));
    let found = host.find("alias").unwrap();
    assert_eq!(found.kind, WorkloadKind::Unit);
    assert_eq!(found.name, "web.service");
    assert_eq!(found.cgroup, Path::new("system.slice/web.service"));
    assert_eq!(found.pid, Some(Pid::from_raw(652)));
    host.answers(SOCKET);
    let found = host.find("dbus.socket").unwrap();
    assert_eq!(found.cgroup, Path::new("system.slice/dbus.socket"));
    assert_eq!(found.pid, None);
}

#[test]
fn systemctl_is_asked_for_the_unit_and_nothing_else() {
    let host = Host::new();
    host.systemctl("echo \"$@\" > \"$0.asked\"; env > \"$0.env\"; exit 1");
    host.error("web");
    let asked = fs::read_to_string(host.path("usr/bin/systemctl.asked")).unwrap();
    assert_eq!(
        asked,
        format!("--system --no-pager show --property {PROPERTIES} -- web.service\n")
    );
    let env = fs::read_to_string(host.path("usr/bin/systemctl.env")).unwrap();
    assert!(!env.contains("CARGO"), "{env}");
}

#[test]
fn a_cgroup_with_another_id_is_not_the_units() {
    let host = Host::new();
    host.answers(&SERVICE.replace("@ID@", &(host.id() + 1).to_string()));
    let error = host.error("web");
    assert!(
        error.contains("is not the one of the unit web.service"),
        "{error}"
    );
    let elsewhere = SERVICE.replace("/web.service", "/none.service");
    host.answers(&elsewhere.replace("@ID@", "0"));
    let error = host.error("web");
    assert!(error.contains("has no cgroup of v2"), "{error}");
}

#[test]
fn a_unit_that_does_not_run_or_exist_is_an_error() {
    let host = Host::new();
    host.answers(MISSING);
    let error = host.error("nosuch");
    assert!(
        error.contains("systemd has no unit nosuch.service (its state is not-found)"),
        "{error}"
    );
    host.answers(&MISSING.replace("not-found", "loaded"));
    let error = host.error("nosuch");
    assert!(
        error.contains("nosuch.service is inactive and has no processes"),
        "{error}"
    );
}

#[test]
fn what_systemctl_says_is_the_reason() {
    let host = Host::new();
    host.systemctl("echo 'Failed to connect to bus' >&2; exit 1");
    let error = host.error("web");
    assert!(
        error.ends_with("systemctl failed: Failed to connect to bus"),
        "{error}"
    );
    host.systemctl("true");
    assert!(
        host.error("web")
            .contains("cannot understand systemctl's answer")
    );
    fs::remove_file(host.path("usr/bin/systemctl")).unwrap();
    assert!(host.error("web").contains("systemctl is not installed"));
    fs::remove_dir_all(host.path("run")).unwrap();
    assert!(host.error("web").contains("systemd does not run here"));
}

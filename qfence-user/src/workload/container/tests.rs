//! Containers are found in the files that real engines wrote. Their first process is a child of the test, whose number
//! and start time replace those in the files.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command},
};

use tempfile::TempDir;

use super::*;

const RUNC: &str = "66b4bf537bdfaba476f13cecb91574dc855ce9d354163e894825775157fd5f2f";
const CRUN: &str = "8936115eb2d91998d5db0df26764001abc6569e3967ee4cfb51e7a641ab4a632";
const DOCKER: &str = "140905322dc24ed3c9609972f77618817d93ea33752b94bf5882948a4b36caa6";

/// A host with the files of the engines, and a process.
struct Host {
    directory: TempDir,
    process: Child,
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

impl Host {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/workload/fixtures");
        copy(&fixtures, &directory.path().join("root"));
        let process = Command::new("sleep").arg("1000").spawn().unwrap();
        Self { directory, process }
    }

    fn root(&self) -> PathBuf {
        self.directory.path().join("root")
    }

    fn stat(&self) -> String {
        let pid = self.process.id();
        fs::read_to_string(format!("/proc/{pid}/stat")).unwrap()
    }

    fn started(&self) -> String {
        let stat = self.stat();
        let (_, fields) = stat.rsplit_once(')').unwrap();
        fields.split_whitespace().nth(19).unwrap().to_owned()
    }

    /// Writes the number and the start time of the process into a file, and shows the process in a cgroup.
    fn runs(&self, file: &str, pid: &str, started: &str, cgroup: &str) {
        self.replace(file, pid, &self.process.id().to_string());
        if !started.is_empty() {
            self.replace(file, started, &self.started());
        }
        self.is_in(cgroup);
    }

    fn is_in(&self, cgroup: &str) {
        let pid = self.process.id().to_string();
        let process = self.directory.path().join("proc").join(&pid);
        let thread = process.join("task").join(&pid);
        fs::create_dir_all(&thread).unwrap();
        fs::write(process.join("cgroup"), format!("1:cpu:/\n0::{cgroup}\n")).unwrap();
        fs::write(thread.join("stat"), self.stat()).unwrap();
    }

    fn replace(&self, file: &str, from: &str, to: &str) {
        let path = self.root().join(file);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{file} has no {from}");
        fs::write(path, text.replace(from, to)).unwrap();
    }

    fn find(&self, text: &str) -> Result<Workload> {
        let proc = self.directory.path().join("proc");
        let mut apart = Apart::here(&proc);
        let paths = Paths {
            root: self.root(),
            proc,
            ..Paths::default()
        };
        find(text, &paths, Path::new("/"), &mut apart)
    }

    fn cgroup(&self, text: &str) -> String {
        let found = self.find(text).unwrap();
        let pid = found.pid.unwrap().as_raw();
        assert_eq!(u32::try_from(pid), Ok(self.process.id()));
        found.cgroup.to_str().unwrap().to_owned()
    }

    fn error(&self, text: &str) -> String {
        format!("{:#}", self.find(text).unwrap_err())
    }
}

#[test]
fn a_container_of_podman_is_found_with_both_runtimes() {
    let host = Host::new();
    let cgroup = format!("/libpod_parent/libpod-{RUNC}");
    host.runs(
        &format!("run/runc/{RUNC}/state.json"),
        "145",
        "1274516",
        &cgroup,
    );
    for text in ["c-runc", "podman:c-runc", RUNC, "66b4"] {
        assert_eq!(host.cgroup(text), cgroup[1..]);
    }
    let found = host.find("66b4").unwrap();
    assert_eq!(found.name, "c-runc");
    let kind = WorkloadKind::Container {
        engine: "podman".into(),
    };
    assert_eq!(found.kind, kind);

    // With a systemd in the container.
    let cgroup = format!("/machine.slice/libpod-{CRUN}.scope");
    let file = format!("run/crun/{CRUN}/status");
    host.runs(&file, "782", "1279135", &format!("{cgroup}/init.scope"));
    assert_eq!(host.cgroup("c-crun"), cgroup[1..]);
}

#[test]
fn a_container_of_docker_is_found_by_the_state_of_its_runtime() {
    let host = Host::new();
    let cgroup = format!("/system.slice/docker-{DOCKER}.scope");
    let state = format!("run/docker/runtime-runc/moby/{DOCKER}/state.json");
    host.runs(&state, "552", "1277507", &cgroup);
    for text in ["d1", "docker:d1", "1409"] {
        assert_eq!(host.cgroup(text), cgroup[1..]);
    }
    assert_eq!(host.find("1409").unwrap().name, "d1");
}

#[test]
fn a_container_of_containerd_is_found_by_its_namespace() {
    let host = Host::new();
    let state = "run/containerd/runc/k8s.io/web/state.json";
    let text = fs::read_to_string(host.root().join(state)).unwrap();
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    let (pid, started) = (&value["init_process_pid"], &value["init_process_start"]);
    host.runs(state, &pid.to_string(), &started.to_string(), "/k8s.io/web");
    assert_eq!(host.cgroup("k8s.io/web"), "k8s.io/web");
    let error = host.error("web");
    assert!(
        error.contains("containerd:default/web, containerd:k8s.io/web"),
        "{error}"
    );
    // The process of another container's state is not in this one's cgroup.
    host.is_in("/k8s.io/other");
    let error = host.error("k8s.io/web");
    assert!(
        error.contains("does not show that it is the container's"),
        "{error}"
    );
}

#[test]
fn a_process_that_got_the_number_of_an_ended_one_is_not_taken_for_it() {
    let host = Host::new();
    let cgroup = format!("/libpod_parent/libpod-{RUNC}");
    host.runs(&format!("run/runc/{RUNC}/state.json"), "145", "", &cgroup);
    let error = host.error("c-runc");
    assert!(
        error.contains("another process has its number now"),
        "{error}"
    );
}

#[test]
fn without_a_state_the_cgroup_must_have_the_id() {
    let host = Host::new();
    fs::remove_dir_all(host.root().join("run/runc")).unwrap();
    let file = format!("run/containers/storage/overlay-containers/{RUNC}/userdata/pidfile");
    host.runs(&file, "145", "", &format!("/libpod_parent/libpod-{RUNC}"));
    assert_eq!(
        host.cgroup("c-runc"),
        format!("libpod_parent/libpod-{RUNC}")
    );
    host.is_in("/user.slice");
    let error = host.error("c-runc");
    assert!(
        error.contains("does not show that it is the container's"),
        "{error}"
    );
}

#[test]
fn a_container_that_does_not_run_is_an_error() {
    let host = Host::new();
    let config = format!("var/lib/docker/containers/{DOCKER}/config.v2.json");
    host.replace(&config, "\"Running\":true", "\"Running\":false");
    let error = host.error("d1");
    assert!(
        error.contains("docker:d1 (140905322dc2) does not run"),
        "{error}"
    );
    fs::remove_dir_all(host.root().join("run")).unwrap();
    let error = host.error("c-runc");
    assert!(error.contains("does not run"), "{error}");
}

#[test]
fn a_state_of_a_container_that_has_ended_is_an_error() {
    let mut host = Host::new();
    let cgroup = format!("/docker/{DOCKER}");
    let state = format!("run/docker/runtime-runc/moby/{DOCKER}/state.json");
    host.runs(&state, "552", "1277507", &cgroup);
    assert_eq!(host.cgroup("d1"), cgroup[1..]);
    host.process.kill().unwrap();
    host.process.wait().unwrap();
    let error = host.error("d1");
    assert!(
        error.contains("it does not run any more: start it"),
        "{error}"
    );
}

#[test]
fn names_are_in_the_directories_that_the_configuration_names() {
    let host = Host::new();
    let root = host.root();
    fs::create_dir_all(root.join("etc/containers")).unwrap();
    fs::create_dir_all(root.join("etc/docker")).unwrap();
    fs::create_dir_all(root.join("srv")).unwrap();
    fs::rename(root.join("var/lib/docker"), root.join("srv/docker")).unwrap();
    fs::rename(
        root.join("var/lib/containers/storage"),
        root.join("srv/store"),
    )
    .unwrap();
    for name in ["docker:d1", "podman:c-runc"] {
        assert!(host.error(name).contains("there is no container"), "{name}");
    }
    fs::write(
        root.join("etc/docker/daemon.json"),
        r#"{"data-root": "/srv/docker"}"#,
    )
    .unwrap();
    fs::write(
        root.join("etc/containers/storage.conf"),
        "[storage]\ndriver = \"overlay\"\ngraphroot = \"/srv/store\"\n",
    )
    .unwrap();
    let state = format!("run/docker/runtime-runc/moby/{DOCKER}/state.json");
    host.runs(&state, "552", "1277507", &format!("/docker/{DOCKER}"));
    assert_eq!(host.cgroup("d1"), format!("docker/{DOCKER}"));
    let cgroup = format!("/libpod_parent/libpod-{RUNC}");
    host.runs(
        &format!("run/runc/{RUNC}/state.json"),
        "145",
        "1274516",
        &cgroup,
    );
    assert_eq!(host.cgroup("c-runc"), cgroup[1..]);
}

#[test]
fn a_file_that_cannot_be_understood_is_an_error_with_the_way_round_it() {
    let host = Host::new();
    let cgroup = format!("/docker/{DOCKER}");
    let state = format!("run/docker/runtime-runc/moby/{DOCKER}/state.json");
    host.runs(&state, "552", "1277507", &cgroup);
    let file = "var/lib/containers/storage/overlay-containers/containers.json";
    host.replace(file, "]", "");
    let error = host.error("d1");
    assert!(
        error.contains("cannot read the containers of podman; name the engine"),
        "{error}"
    );
    assert_eq!(host.cgroup("docker:d1"), cgroup[1..]);
}

//! A node of Kubernetes without a cluster: containerd of Debian 13 with plugins, asked over its CRI as a kubelet asks it, by
//! gRPC. Pods have a network by Debian's plugins of CNI.

mod messages;

use std::{collections::BTreeMap, fs};

use anyhow::{Context as _, Result, ensure};
use messages::{
    Container, ContainerStatus, CreateContainer, ExecSync, ExecSyncAnswer, Id, Image, Limits,
    Metadata, Names, PodConfig, PodLinux, RunPod,
};
use prost::Message;

use super::{FILES, PROBE, Room};
use crate::{
    debian,
    process::Process,
    run::{Ended, wait_until},
    world::World,
};

/// The node's side of the bridge of all pods.
pub const PODS_GATEWAY: &str = "10.85.0.1";

/// The socket at which plugins register that containerd has not started.
pub const NRI_SOCKET: &str = "/var/run/nri/nri.sock";

const IMAGE: &str = "localhost/tests/probe:latest";
const SOCKET: &str = "/run/containerd/containerd.sock";
const LOGS: &str = "/run/pods";

/// The runtime that containerd runs, on any machine.
pub const RUNTIME: &str = "/usr/local/bin/runc-without-limits";

/// The configuration of containerd.
const CONFIG: &str = r#"version = 2
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/tests/probe:latest"
  restrict_oom_score_adj = true
  disable_apparmor = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "/etc/cni/net.d"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "native"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        BinaryName = "/usr/local/bin/runc-without-limits"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.qfence]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.qfence.options]
        BinaryName = "/usr/local/bin/qfence-runc"
[plugins."io.containerd.nri.v1.nri"]
  disable = false
"#;

/// The network of the pods.
const NETWORK: &str = r#"{
  "cniVersion": "0.4.0", "name": "pods",
  "plugins": [{
    "type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": true,
    "ipam": {
      "type": "host-local",
      "ranges": [[{ "subnet": "10.85.0.0/24" }]],
      "routes": [{ "dst": "0.0.0.0/0" }]
    }
  }]
}
"#;

/// containerd gives each pod a share of the processor. This machine need not have such controllers.
const RUNC: &str = r#"#!/bin/sh
bundle=. previous=
for word; do
    [ "$previous" != --bundle ] || bundle=$word
    previous=$word
done
[ ! -f "$bundle/config.json" ] || sed -i 's/"\(cpu\|memory\|pids\)":{[^}]*}/"\1":{}/g' "$bundle/config.json"
exec /usr/sbin/runc "$@"
"#;

/// Makes an archive of the image as Docker writes it, and what a kernel without loaded modules and an installed system have.
const PREPARE: &str = r#"set -e
echo 1 > /proc/sys/net/ipv4/ip_forward
for name in iptables ip6tables; do
    [ -e /usr/sbin/$name ] || ln -s xtables-nft-multi /usr/sbin/$name
done
chmod 755 /usr/local/bin/runc-without-limits
cd /root
mkdir archive
tar -C image -cf archive/layer.tar .
sum=$(sha256sum archive/layer.tar)
cat > archive/config.json <<CONFIG
{"architecture":"amd64","os":"linux","config":{"Cmd":["/bin/busybox","sleep","100000"]},
 "rootfs":{"type":"layers","diff_ids":["sha256:${sum%% *}"]},"history":[{"created_by":"tests"}]}
CONFIG
echo '[{"Config":"config.json","RepoTags":["localhost/tests/probe:latest"],"Layers":["layer.tar"]}]' > archive/manifest.json
tar -C archive -cf archive.tar manifest.json config.json layer.tar
"#;

/// A pod that runs.
#[derive(Clone, Debug)]
pub struct Pod {
    /// Its id.
    pub id: String,
    config: PodConfig,
}

impl Room {
    /// Makes a node in the network of the host of a world.
    pub fn with_cri(world: &World, nameserver: &str) -> Result<Self> {
        let room = Self::with(&debian::cri()?, world, nameserver)?;
        room.make_image()?;
        room.write("/etc/containerd/config.toml", CONFIG)?;
        room.write("/etc/cni/net.d/10-pods.conflist", NETWORK)?;
        room.write("/usr/local/bin/runc-without-limits", RUNC)?;
        fs::create_dir_all(room.path(LOGS))?;
        room.output(&["sh", "-c", PREPARE])
            .with_context(|| format!("prepare {FILES}"))?;
        Ok(room)
    }

    /// Starts containerd, in a cgroup of its own, and waits until it serves a kubelet. The first one gets the image.
    pub fn start_node(&self) -> Result<Process> {
        let containerd = self.start("containerd", &[])?;
        let answers = wait_until("containerd answers", || {
            let version = self.call("Version", &Names::default());
            Ok(version.is_ok_and(|version| version.is_ok()))
        });
        answers.with_context(|| self.log_of("containerd"))?;
        let archive = self.path("/root/archive.tar");
        if archive.exists() {
            let import = ["ctr", "--namespace", "k8s.io", "images", "import"];
            let options = ["--snapshotter", "native", "/root/archive.tar"];
            self.output(&[&import[..], &options].concat())?;
            fs::remove_file(archive)?;
        }
        Ok(containerd)
    }

    /// Starts the containers' part of a pod with annotations.
    pub fn run_pod(&self, name: &str, annotations: &[(&str, &str)]) -> Result<Pod> {
        self.run_pod_by("", name, annotations)
    }

    /// The same by a runtime of the configuration, as a runtime class chooses it.
    pub fn run_pod_by(
        &self,
        runtime: &str,
        name: &str,
        annotations: &[(&str, &str)],
    ) -> Result<Pod> {
        let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        let config = PodConfig {
            metadata: Some(Metadata {
                name: name.into(),
                uid: name.into(),
                namespace: "tests".into(),
            }),
            log_directory: format!("{LOGS}/{name}"),
            annotations: annotations.iter().map(owned).collect(),
            linux: Some(PodLinux {
                cgroup_parent: format!("/kubepods/{name}"),
            }),
        };
        let request = RunPod {
            config: Some(config.clone()),
            runtime: runtime.into(),
        };
        let answer = self.must("RunPodSandbox", &request)?;
        let id = Id::decode(&*answer)?.id;
        Ok(Pod { id, config })
    }

    /// Makes a container in a pod, without starting it; `Err` is containerd's reason.
    pub fn create_container(
        &self,
        pod: &Pod,
        name: &str,
        command: &[&str],
    ) -> Result<Result<String, String>> {
        let request = CreateContainer {
            pod: pod.id.clone(),
            config: Some(Container {
                metadata: Some(Metadata {
                    name: name.into(),
                    ..Metadata::default()
                }),
                image: Some(Image {
                    image: IMAGE.into(),
                }),
                command: command.iter().map(|word| (*word).to_owned()).collect(),
                log_path: format!("{name}.log"),
                linux: Some(Limits {}),
            }),
            pod_config: Some(pod.config.clone()),
        };
        let answer = self.call("CreateContainer", &request)?;
        let id = answer.map(|answer| Id::decode(&*answer));
        Ok(match id {
            Ok(id) => Ok(id?.id),
            Err(reason) => Err(reason),
        })
    }

    /// Starts a container; `Err` is containerd's reason.
    pub fn start_container(&self, id: &str) -> Result<Result<(), String>> {
        let started = self.call("StartContainer", &Id { id: id.into() })?;
        Ok(started.map(drop))
    }

    /// Runs a container in a pod to its end, and returns what it has written.
    pub fn run_container(&self, pod: &Pod, name: &str, command: &[&str]) -> Result<String> {
        let id = self.create_container(pod, name, command)?;
        let id = id.map_err(anyhow::Error::msg)?;
        self.start_container(&id)?.map_err(anyhow::Error::msg)?;
        wait_until("the container has ended", || Ok(self.state(&id)? == EXITED))?;
        let log = format!("{}/{name}.log", pod.config.log_directory);
        let log = fs::read_to_string(self.path(&log))?;
        // Each line begins with its time, its stream and a tag.
        let texts = log.lines().filter_map(|line| line.splitn(4, ' ').nth(3));
        Ok(texts.map(|text| format!("{text}\n")).collect())
    }

    /// Makes attempts in the network of the youngest pod, by a process of the node: in none of the pod's cgroups.
    pub fn attempt_beside(&self, attempts: &[&str]) -> Result<String> {
        let line = "exec nsenter --net=$(ls -t /var/run/netns/* | head -n 1) \"$@\"";
        let probe = format!("{FILES}{PROBE}");
        self.output(&[&["sh", "-c", line, "sh", &probe], attempts].concat())
    }

    /// Runs a command in a container that runs.
    pub fn exec(&self, id: &str, command: &[&str]) -> Result<String> {
        let request = ExecSync {
            id: id.into(),
            command: command.iter().map(|word| (*word).to_owned()).collect(),
            timeout: 60,
        };
        let answer = self.must("ExecSync", &request)?;
        let answer = ExecSyncAnswer::decode(&*answer)?;
        let said = String::from_utf8_lossy(&answer.stderr);
        ensure!(answer.exit_code == 0, "{command:?}: {said}");
        Ok(String::from_utf8(answer.stdout)?)
    }

    /// Ends a pod and its containers.
    pub fn remove_pod(&self, pod: &Pod) -> Result<()> {
        let id = Id { id: pod.id.clone() };
        self.must("StopPodSandbox", &id)?;
        self.must("RemovePodSandbox", &id).map(drop)
    }

    /// Starts qfence as a service of the node.
    pub fn start_qfence(&self, arguments: &[&str]) -> Result<Process> {
        self.start(QFENCE, arguments)
    }

    /// Kills that service.
    pub fn kill_qfence(&self) -> Result<()> {
        self.kill(QFENCE)
    }

    /// What it has said.
    #[must_use]
    pub fn log_of_qfence(&self) -> String {
        self.log_of(QFENCE)
    }

    /// What containerd has said.
    #[must_use]
    pub fn containerd_log(&self) -> String {
        self.log_of("containerd")
    }

    fn state(&self, id: &str) -> Result<i32> {
        let answer = self.must("ContainerStatus", &Id { id: id.into() })?;
        let answer = ContainerStatus::decode(&*answer)?;
        Ok(answer.status.context("a status")?.state)
    }

    fn must(&self, method: &str, request: &impl Message) -> Result<Vec<u8>> {
        let answer = self.call(method, request)?;
        answer.map_err(|reason| anyhow::anyhow!("{method}: {reason}\n{}", self.containerd_log()))
    }

    /// Calls a method of containerd's runtime service.
    fn call(&self, method: &str, request: &impl Message) -> Result<Result<Vec<u8>, String>> {
        let message = request.encode_to_vec();
        let mut bytes = vec![0];
        bytes.extend(u32::try_from(message.len())?.to_be_bytes());
        bytes.extend(message);
        let base = tempfile::Builder::new().tempfile_in(self.path("/run"))?;
        let name = base.path().file_name().and_then(|name| name.to_str());
        let name = format!("/run/{}", name.context("a name")?);
        fs::write(base.path(), bytes)?;
        let (answer, headers) = (format!("{name}.answer"), format!("{name}.headers"));
        let curl = [
            "curl",
            "--silent",
            "--show-error",
            "--max-time",
            "60",
            "--http2-prior-knowledge",
            "--header",
            "content-type: application/grpc",
            "--header",
            "te: trailers",
        ];
        let url = format!("http://node/runtime.v1.RuntimeService/{method}");
        let files = [
            "--unix-socket",
            SOCKET,
            "--data-binary",
            &format!("@{name}"),
            "--output",
            &answer,
            "--dump-header",
            &headers,
            &url,
        ];
        let ended: Ended = self.run(&[&curl[..], &files].concat())?;
        ensure!(ended.code() == Some(0), "{method}: {ended:?}");
        let said = fs::read_to_string(self.path(&headers))?;
        let headers: BTreeMap<_, _> = said
            .lines()
            .filter_map(|line| line.split_once(": "))
            .collect();
        if headers.get("grpc-status").copied() != Some("0") {
            return Ok(Err(
                (*headers.get("grpc-message").unwrap_or(&&*said)).to_owned()
            ));
        }
        let bytes = fs::read(self.path(&answer))?;
        Ok(Ok(bytes.get(5..).unwrap_or_default().to_vec()))
    }
}

/// The state of a container that has ended.
const EXITED: i32 = 2;

const QFENCE: &str = "qfence-user";

//! Published ports of fenced containers answer by TCP and UDP, and their names are resolved.

use std::net::IpAddr;

use anyhow::{Context as _, Result};
use tests::{
    engines::{CRUN, IMAGE, PROBE},
    namespace::Namespace,
    probe::{self, ProbeResult},
    run::wait_until,
    world::HOST_V4,
};

use super::{Scene, SystemLog, assert_fenced, docker, podman};

/// The port of the container, and that of the node.
const INSIDE: u16 = 9000;
const PUBLISHED: u16 = 8081;

/// A container that serves, published on all addresses of the node. `engine` are the words before the image.
fn serve(scene: &Scene, engine: &[&str]) -> Result<()> {
    let ports = ["tcp", "udp"].map(|protocol| format!("{PUBLISHED}:{INSIDE}/{protocol}"));
    let services = ["tcp", "udp"].map(|protocol| format!("{protocol}/{INSIDE}"));
    let published = ["--publish", &ports[0], "--publish", &ports[1]];
    let serve = [IMAGE, PROBE, "--serve", &services[0], &services[1]];
    scene.room.output(&[engine, &published, &serve].concat())?;
    Ok(())
}

/// The address of the container, and that of the node in its network.
fn addresses(scene: &Scene, engine: &str) -> Result<[String; 2]> {
    let format = "{{range .NetworkSettings.Networks}}{{.IPAddress}} {{.Gateway}}{{end}}";
    let found = scene
        .room
        .output(&[engine, "inspect", "--format", format, "web"])?;
    let (own, gateway) = found.trim().split_once(' ').context("two addresses")?;
    Ok([own, gateway].map(str::to_owned))
}

/// Asks by both protocols; each answers at last. The engine forwards a port shortly after the start.
fn assert_answers(from: &Namespace, address: IpAddr, port: u16) -> Result<()> {
    for protocol in ["tcp", "udp"] {
        let attempt = format!("{protocol}/{address}/{port}");
        wait_until(&format!("{attempt} answers"), || {
            let results = probe::run(from, &["--timeout-ms", "1000", &attempt])?;
            Ok(results
                .iter()
                .all(|result| result.says("hello from the probe")))
        })?;
    }
    Ok(())
}

/// The node reaches the container in each way, others reach it by the node, and the container reaches nothing of the node.
fn assert_published(scene: &Scene, engine: &str) -> Result<()> {
    let [own, gateway] = addresses(scene, engine)?;
    let node = &scene.world.host;
    assert_answers(node, own.parse()?, INSIDE)?;
    for address in ["127.0.0.1".parse()?, HOST_V4, gateway.parse()?] {
        assert_answers(node, address, PUBLISHED)?;
    }
    assert_answers(&scene.world.internet, HOST_V4, PUBLISHED)?;
    assert_fenced(&scene.probe_in(engine, "web", &gateway)?)?;
    let to_itself = [
        format!("tcp/{own}/{INSIDE}"),
        format!("udp/127.0.0.1/{INSIDE}"),
        format!("tcp/{HOST_V4}/{PUBLISHED}"),
        format!("udp/{gateway}/{PUBLISHED}"),
    ];
    let words: Vec<&str> = to_itself.iter().map(String::as_str).collect();
    let exec = [engine, "exec", "web", PROBE];
    let ended = scene.room.run(&[&exec, &words[..]].concat())?;
    let results: Vec<ProbeResult> = probe::read_lines(&ended.stdout)?;
    assert_eq!(results.len(), words.len(), "{ended:?}");
    for result in results {
        assert!(result.failed_with("ECONNREFUSED"), "{result:?}");
    }
    Ok(())
}

/// The name of a container is resolved in a container of the same network.
fn assert_resolves(scene: &Scene, engine: &str) -> Result<()> {
    let [own, _] = addresses(scene, engine)?;
    let ask = [engine, "exec", "web", "/bin/busybox", "nslookup", "web"];
    let said = scene.room.output(&ask)?;
    assert!(said.contains(&format!("Address: {own}")), "{said}");
    Ok(())
}

/// In a network that a user has made, aardvark-dns resolves names at the node's address in that network.
#[test]
fn ports_of_podman_answer_and_its_names_are_resolved() -> Result<()> {
    let scene = podman::scene()?;
    scene.room.output(&["podman", "network", "create", "net"])?;
    scene.room.make_crun()?;
    let log = SystemLog::listen(&scene)?;
    for runtime in ["runc", CRUN] {
        let run = ["podman", "--runtime", runtime, "run", "--detach"];
        let options = ["--name", "web", "--annotation", "qfence=on"];
        let network = ["--network", "net"];
        serve(&scene, &[&run[..], &options, &network].concat()).with_context(|| log.messages())?;
        assert_published(&scene, "podman").context(runtime)?;
        assert_resolves(&scene, "podman").context(runtime)?;
        let remove = ["podman", "rm", "--force", "--time", "0", "web"];
        scene.room.output(&remove)?;
        scene.assert_nothing_left()?;
    }
    Ok(())
}

/// In a network that a user has made, Docker resolves names at 127.0.0.11, and redirects that to other ports.
#[test]
fn ports_of_docker_answer_and_its_names_are_resolved() -> Result<()> {
    let (scene, _docker) = docker::scene()?;
    scene.room.output(&["docker", "network", "create", "net"])?;
    let run = ["docker", "run", "--detach", "--name", "web"];
    let fenced = ["--runtime", "qfence", "--network", "net"];
    serve(&scene, &[&run[..], &fenced].concat())?;
    assert_published(&scene, "docker")?;
    assert_resolves(&scene, "docker")?;
    scene.room.output(&["docker", "rm", "--force", "web"])?;
    scene.assert_nothing_left()
}

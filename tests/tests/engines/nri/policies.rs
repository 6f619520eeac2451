//! A container has one policy: that of the node's plugins and of its runtime class, which are the same, or it is not made or
//! does not start.

use anyhow::Result;
use tests::{engines::RUNTIME, run::wait_until};

use super::{
    FENCED, FOR_EVER, assert_fenced, assert_open, connect, install, plugin, probe, probe_in, scene,
};
use crate::engines::Scene;

/// Installs what the image has, as the manifest does on each start of its pod; returns what that says.
fn install_from_image(scene: &Scene) -> Result<String> {
    let bin = "/usr/local/bin";
    let runc = include_str!("../../../../contrib/docker/qfence-runc");
    scene.room.write(&format!("{bin}/qfence-runc"), runc)?;
    scene.room.write(&format!("{bin}/10-qfence"), plugin())?;
    let script = include_str!("../../../../contrib/kubernetes/install.sh");
    scene.room.write("/root/install.sh", script)?;
    let install =
        "mkdir -p /root/bin /opt/nri/plugins && sh /root/install.sh /root/bin /opt/nri/plugins";
    scene.room.output(&["sh", "-c", install])
}

#[test]
fn the_policy_of_a_node_stays_and_two_different_ones_make_no_container() -> Result<()> {
    let scene = scene()?;
    assert_eq!(install_from_image(&scene)?, "");
    let policy = plugin().replace("--profile host", "--profile host --deny udp:any");
    assert_ne!(policy, plugin());
    install(&scene, &policy)?;
    let said = install_from_image(&scene)?;
    assert!(said.contains("10-qfence of the node differs"), "{said}");
    let _plugin = connect(&scene, "90")?;
    let _containerd = scene.room.start_node()?;
    wait_until("both are registered", || {
        let log = scene.room.containerd_log();
        Ok(log.contains("10-qfence") && log.contains("90-qfence"))
    })?;
    let pod = scene.room.run_pod("both", &[FENCED])?;
    let refused = scene.room.create_container(&pod, "main", &FOR_EVER)?;
    let refused = refused.expect_err("both policies cannot hold");
    assert!(refused.contains("other options"), "{refused}");
    let open = scene.room.run_pod("open", &[])?;
    assert_open(&probe(&scene, &open, "main")?);
    Ok(())
}

/// Writes the runtime of the runtime class.
fn write_class(scene: &Scene, text: &str) -> Result<()> {
    let path = "/usr/local/bin/qfence-runc";
    scene.room.write(path, text)?;
    scene.room.output(&["chmod", "755", path]).map(drop)
}

fn class() -> String {
    let class = include_str!("../../../../contrib/docker/qfence-runc");
    class.replace("runc=/usr/bin/runc", &format!("runc={RUNTIME}"))
}

/// Whoever makes pods chooses both, and one policy may be weaker than the other.
#[test]
fn a_pod_with_annotation_and_runtime_class_has_the_policy_of_both() -> Result<()> {
    let scene = scene()?;
    install(&scene, plugin())?;
    let other = class().replace("--profile host", "--profile host --deny udp:any");
    assert_ne!(other, class());
    write_class(&scene, &other)?;
    let _containerd = scene.room.start_node()?;
    let pod = scene.room.run_pod_by("qfence", "class", &[])?;
    let results = probe(&scene, &pod, "main")?;
    for refused in [&results[..4], &results[5..]].concat() {
        assert!(refused.failed_with("ECONNREFUSED"), "{refused:?}");
    }
    assert!(results[4].says("hello from"), "{results:?}");
    scene.room.remove_pod(&pod)?;

    let pod = scene.room.run_pod_by("qfence", "both", &[FENCED])?;
    let id = scene.room.create_container(&pod, "main", &FOR_EVER)?;
    let id = id.map_err(anyhow::Error::msg)?;
    let refused = scene.room.start_container(&id)?;
    let refused = refused.expect_err("both policies cannot hold");
    assert!(refused.contains("cannot hold"), "{refused}");
    write_class(&scene, &class())?;
    assert_fenced(&probe(&scene, &pod, "same")?);
    scene.room.remove_pod(&pod)?;
    scene.assert_nothing_left()
}

/// The hook of a runtime class fences what was made without the plugin, which looks whether that fence is in force.
#[test]
fn a_container_whose_fence_has_no_programs_does_not_start() -> Result<()> {
    let scene = scene()?;
    let line = "    -- \"$@\"";
    assert!(class().contains(line));
    let damaging = class().replace("exec /usr", "/usr").replace(
        line,
        &format!(
            "{line}\nstatus=$?\n[ ! -e /root/damage ] || find /sys/fs/bpf -name connect4 -delete\nexit $status"
        ),
    );
    write_class(&scene, &damaging)?;
    let _containerd = scene.room.start_node()?;
    let pod = scene.room.run_pod_by("qfence", "class", &[FENCED])?;
    let make = |name| {
        let id = scene.room.create_container(&pod, name, &FOR_EVER)?;
        id.map_err(anyhow::Error::msg)
    };
    let (whole, damaged) = (make("whole")?, make("damaged")?);
    let _plugin = connect(&scene, "10")?;
    wait_until("the plugin is registered", || {
        Ok(scene.room.containerd_log().contains("invocation order"))
    })?;
    let started = scene.room.start_container(&whole)?;
    started.map_err(anyhow::Error::msg)?;
    assert_fenced(&probe_in(&scene, &whole)?);
    scene.room.write("/root/damage", "")?;
    let refused = scene.room.start_container(&damaged)?;
    let refused = refused.expect_err("its fence is not in force");
    assert!(refused.contains("NOT FENCED"), "{refused}");
    Ok(())
}

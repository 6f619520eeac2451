//! Changes at the same time, and changes that hang.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;
use tests::{
    fence::qfence,
    listener::Listeners,
    run::{to_end, wait_until},
    world::{HOST_V4, SERVER_V4, SERVER_V6},
};

use super::{PORT, Scene, rule};

#[test]
fn many_changes_at_once_are_all_made() -> Result<()> {
    let mut scene = Scene::new("at-once", &["--default", "deny"])?;
    let start = Instant::now();
    let mut changes = Vec::new();
    for index in 0..8 {
        let rules = [SERVER_V4, SERVER_V6].map(|ip| rule("tcp:", ip, 9000 + index));
        let mut command = scene.world.host.command(qfence()?);
        command.args([
            "set",
            scene.fence.name(),
            "--allow",
            &rules[0],
            "--allow",
            &rules[1],
        ]);
        changes.push(thread::spawn(move || to_end(command)));
    }
    for change in changes {
        let ended = change.join().expect("no panic")?;
        assert_eq!(ended.code(), Some(0), "{ended:?}");
    }
    assert!(start.elapsed() < Duration::from_secs(60));
    let services: Result<Vec<_>> = (0..8)
        .map(|index| Listeners::everywhere(&scene.world.internet, 9000 + index))
        .collect();
    let _services = services?;
    for index in 0..8 {
        for address in [SERVER_V4, SERVER_V6] {
            assert!(scene.attempt("tcp", address, 9000 + index)?.is_reached());
        }
    }
    scene.assert_all(false, &[(&SERVER_V4, PORT)])
}

/// Whoever is about to change the policy may be stopped, or very slow: the supervisor goes about its work.
#[test]
fn a_change_that_hangs_does_not_hold_up_the_supervisor() -> Result<()> {
    let mut scene = Scene::new("hang", &[])?;
    let pins = format!("/sys/fs/bpf/qfence/{}", scene.fence.name());
    let lock = nix::fcntl::Flock::lock(
        std::fs::File::open(pins)?,
        nix::fcntl::FlockArg::LockExclusive,
    );
    let lock = lock.map_err(|(_, errno)| errno)?;
    let fresh: std::net::IpAddr = "192.0.2.97".parse()?;
    scene.world.add_host_address(fresh, "eth0")?;
    let _service = Listeners::everywhere(&scene.world.host, 8083)?;
    thread::sleep(Duration::from_millis(1500));
    // It logs all the while.
    assert!(
        scene
            .attempt("tcp", HOST_V4, PORT)?
            .failed_with("ECONNREFUSED")
    );
    scene
        .fence
        .await_refusal(|refusal| refusal.destination == HOST_V4.to_string())?;
    // And takes the new address in once it can.
    drop(lock);
    wait_until("the new address is the host", || {
        Ok(scene
            .attempt("udp", fresh, 8083)?
            .failed_with("ECONNREFUSED"))
    })
}

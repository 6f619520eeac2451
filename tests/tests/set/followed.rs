//! After a change the supervisor follows what the new policy names. A fence without a supervisor can be changed too.

use std::{thread, time::Duration};

use anyhow::Result;
use tests::{
    listener::Listeners,
    run::wait_until,
    world::{GATEWAY_V4, GATEWAY_V6, HOST_V4, HOST_V6, SERVER_V4, SERVER_V6, World},
};

use super::{OTHER, PORT, Scene, rule};

#[test]
fn the_supervisor_goes_on_from_there() -> Result<()> {
    let mut scene = Scene::new("goes-on", &[])?;
    scene.change(&["--allow", "tcp:host:8080", "--deny", &SERVER_V4.to_string()])?;
    // It takes the change in within a second; and then its own occasions come.
    thread::sleep(Duration::from_millis(1500));
    let fresh: std::net::IpAddr = "192.0.2.99".parse()?;
    scene.world.add_host_address(fresh, "eth0")?;
    let _service = Listeners::everywhere(&scene.world.host, 8082)?;
    wait_until("the new address is the host", || {
        Ok(scene
            .attempt("udp", fresh, 8082)?
            .failed_with("ECONNREFUSED"))
    })?;
    assert!(scene.attempt("tcp", HOST_V4, PORT)?.is_reached());
    assert!(
        scene
            .attempt("udp", HOST_V4, PORT)?
            .failed_with("ECONNREFUSED")
    );
    scene.assert_all(false, &[(&SERVER_V4, PORT)])?;

    // The log knows the rules that came later.
    let refusal = scene
        .fence
        .await_refusal(|refusal| refusal.destination == SERVER_V4.to_string())?;
    assert_eq!(refusal.rule, format!("deny {SERVER_V4}"));
    Ok(())
}

#[test]
fn nameservers_are_followed_once_a_rule_names_them() -> Result<()> {
    let world = World::new()?;
    let mut scene = Scene::on(world, "dns", &["--dns", "deny"])?;
    let attempt = format!("tcp/{HOST_V4}/53");
    let _server = Listeners::everywhere(&scene.world.host, 53)?;
    scene
        .world
        .write_resolv_conf(&format!("nameserver {HOST_V4}\n"))?;
    assert!(scene.inside.attempt(&[&attempt])?[0].failed_with("ECONNREFUSED"));
    scene.change(&["--dns", "auto"])?;
    assert!(scene.inside.attempt(&[&attempt])?[0].is_reached());
    // By its supervisor, from then on.
    thread::sleep(Duration::from_millis(1500));
    scene
        .world
        .write_resolv_conf(&format!("nameserver {HOST_V6}\n"))?;
    wait_until("the nameserver is another", || {
        Ok(scene
            .attempt("tcp", HOST_V4, 53)?
            .failed_with("ECONNREFUSED"))
    })?;
    assert!(scene.attempt("tcp", HOST_V6, 53)?.is_reached());
    Ok(())
}

#[test]
fn an_orphaned_fence_can_be_changed_too() -> Result<()> {
    let mut scene = Scene::new("orphan", &[])?;
    scene.inside.kill_supervisor()?;
    scene.assert_all(false, &[(&HOST_V4, PORT), (&HOST_V6, PORT)])?;
    // The host's addresses are looked at anew: nobody follows them any more.
    let fresh: std::net::IpAddr = "192.0.2.98".parse()?;
    scene.world.add_host_address(fresh, "eth0")?;
    let allowed = [rule("", HOST_V4, PORT), rule("", HOST_V6, PORT)];
    scene.change(&["--allow", &allowed[0], "--allow", &allowed[1]])?;
    scene.assert_all(
        true,
        &[(&HOST_V4, PORT), (&HOST_V6, PORT), (&SERVER_V4, PORT)],
    )?;
    scene.assert_all(
        false,
        &[(&HOST_V4, OTHER), (&HOST_V6, OTHER), (&fresh, PORT)],
    )?;
    scene.change(&["--profile", "locked", "--default", "deny", "--deny", "any"])?;
    scene.assert_all(false, &[(&SERVER_V4, PORT), (&SERVER_V6, PORT)])
}

#[test]
fn neighbours_are_not_the_host_until_a_rule_says_so() -> Result<()> {
    let mut scene = Scene::new("neighbours", &[])?;
    let neighbours: [(&dyn std::fmt::Display, u16); 2] = [(&GATEWAY_V4, PORT), (&GATEWAY_V6, PORT)];
    scene.assert_all(true, &neighbours)?;
    scene.change(&["--deny", "192.0.2.0/24", "--deny", "2001:db8:1::/64"])?;
    scene.assert_all(false, &neighbours)?;
    scene.assert_all(true, &[(&SERVER_V4, PORT), (&SERVER_V6, PORT)])
}

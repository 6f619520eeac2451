//! `set` changes rules, the default, the profile and monitor mode, or it changes nothing.

use anyhow::Result;
use tests::{
    fence::qfence,
    run::to_end,
    world::{HOST_V4, HOST_V6, SERVER_V4, SERVER_V6, World},
};

use super::{OTHER, PORT, Scene, rule};

#[test]
fn a_rule_is_in_force_when_the_command_returns() -> Result<()> {
    let mut scene = Scene::new("set", &[])?;
    for (host, server) in [(HOST_V4, SERVER_V4), (HOST_V6, SERVER_V6)] {
        scene.assert_all(false, &[(&host, PORT)])?;
        scene.assert_all(true, &[(&server, PORT)])?;

        scene.change(&[
            "--allow",
            &rule("", host, PORT),
            "--deny",
            &rule("", server, PORT),
        ])?;
        scene.assert_all(true, &[(&host, PORT), (&server, OTHER)])?;
        scene.assert_all(false, &[(&host, OTHER), (&server, PORT)])?;

        // What is given later goes before; one protocol alone.
        scene.change(&["--deny", &rule("tcp:", host, PORT)])?;
        assert!(
            scene
                .attempt("tcp", host, PORT)?
                .failed_with("ECONNREFUSED")
        );
        assert!(scene.attempt("udp", host, PORT)?.is_reached());

        scene.change(&["--allow", &rule("", host, PORT)])?;
        scene.assert_all(true, &[(&host, PORT)])?;
    }
    Ok(())
}

#[test]
fn a_default_a_profile_and_dns_can_be_changed() -> Result<()> {
    let mut scene = Scene::new("profile", &[])?;
    let servers: [(&dyn std::fmt::Display, u16); 2] = [(&SERVER_V4, PORT), (&SERVER_V6, PORT)];
    scene.change(&["--default", "deny"])?;
    scene.assert_all(false, &servers)?;
    scene.change(&["--default", "allow"])?;
    scene.assert_all(true, &servers)?;
    scene.change(&["--profile", "locked", "--default", "deny"])?;
    scene.assert_all(false, &servers)?;
    scene.change(&["--profile", "host", "--default", "allow"])?;
    scene.assert_all(true, &servers)
}

#[test]
fn a_profile_is_what_it_was_until_it_is_read_anew() -> Result<()> {
    let world = World::new()?;
    let profile = |port: u16| {
        format!(
            "default = \"allow\"\n[[rule]]\ncomment = \"the test service\"\n\
             allow = [\"{HOST_V4}:{port}\", \"[{HOST_V6}]:{port}\"]\n[[rule]]\ndeny = \"host\"\n"
        )
    };
    world.write_etc("qfence/profiles.d/test.toml", &profile(PORT))?;
    let mut scene = Scene::on(world, "reload", &["--profile", "test"])?;
    scene.assert_all(true, &[(&HOST_V4, PORT), (&HOST_V6, PORT)])?;
    scene.assert_all(false, &[(&HOST_V4, OTHER), (&HOST_V6, OTHER)])?;

    let write =
        |scene: &Scene, text: &str| scene.world.write_etc("qfence/profiles.d/test.toml", text);
    write(&scene, &profile(OTHER))?;
    scene.change(&["--deny", "192.0.2.77"])?;
    scene.assert_all(false, &[(&HOST_V4, OTHER), (&HOST_V6, OTHER)])?;
    scene.change(&["--reload"])?;
    scene.assert_all(true, &[(&HOST_V4, OTHER), (&HOST_V6, OTHER)])?;
    scene.assert_all(false, &[(&HOST_V4, PORT), (&HOST_V6, PORT)])?;

    // One that is no good changes nothing, and says where.
    write(
        &scene,
        "default = \"allow\"\n[[rule]]\nallow = \"localhost\"\n",
    )?;
    let ended = scene.set(&["--reload", "--default", "deny"])?;
    assert_eq!(ended.code(), Some(125), "{ended:?}");
    assert!(
        ended.stderr.contains("/etc/qfence/profiles.d/test.toml:3:"),
        "{ended:?}"
    );
    scene.assert_all(true, &[(&HOST_V4, OTHER), (&SERVER_V4, PORT)])?;
    scene.assert_all(false, &[(&HOST_V4, PORT)])
}

#[test]
fn what_is_not_understood_changes_nothing() -> Result<()> {
    let mut scene = Scene::new("bad", &[])?;
    for (options, message) in [
        (&["--allow", "tcp:localhost:80"][..], "localhost"),
        (&["--allow", "host:70000"], "70000"),
        (&["--default", "perhaps"], "perhaps"),
        (&["--profile", "no-such-profile"], "no-such-profile"),
        (&["--profile", "/dev/null/x.toml"], "/dev/null/x.toml"),
        (&["--monitor", "--enforce"], "--enforce"),
        (&["--profile", "host", "--reload"], "--reload"),
        (&["--keep-established"], "--allow"),
        (&[], "--allow"),
    ] {
        let ended = scene.set(options)?;
        assert_eq!(ended.code(), Some(125), "{options:?}: {ended:?}");
        assert!(ended.stderr.contains(message), "{options:?}: {ended:?}");
    }
    let mut command = scene.world.host.command(qfence()?);
    let ended = to_end({
        command.args(["set", "t-no-such-fence", "--default", "deny"]);
        command
    })?;
    assert_eq!(ended.code(), Some(125), "{ended:?}");
    assert!(
        ended.stderr.contains("no fence named \"t-no-such-fence\""),
        "{ended:?}"
    );
    scene.assert_all(false, &[(&HOST_V4, PORT), (&HOST_V6, PORT)])?;
    scene.assert_all(true, &[(&SERVER_V4, PORT), (&SERVER_V6, PORT)])
}

#[test]
fn monitor_mode_comes_and_goes() -> Result<()> {
    let mut scene = Scene::new("monitor", &[])?;
    let hosts: [(&dyn std::fmt::Display, u16); 2] = [(&HOST_V4, PORT), (&HOST_V6, PORT)];
    scene.assert_all(false, &hosts)?;
    assert_eq!(scene.listed_as_monitored()?, Some(false));
    scene.change(&["--monitor"])?;
    assert_eq!(scene.listed_as_monitored()?, Some(true));
    scene.assert_all(true, &hosts)?;
    for (address, _) in hosts {
        let address = address.to_string();
        let seen = scene.fence.await_refusal(|refusal| {
            refusal.verdict == "would-deny" && refusal.destination == address
        })?;
        assert_eq!(seen.rule, "deny host");
    }
    // Another change leaves it on.
    scene.change(&["--deny", "10.0.0.1"])?;
    scene.assert_all(true, &hosts)?;
    scene.change(&["--enforce"])?;
    scene.assert_all(false, &hosts)
}

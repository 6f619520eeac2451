//! The profile `names-only` lets the tools do their work with the registries that they use by default.

use std::{collections::BTreeSet, net::IpAddr};

use anyhow::{Context as _, Result};
use tests::{
    dns::Dns,
    fence::{Fence, qfence},
    run::to_end,
    shell::Shell,
    world::{SERVER_V4, World},
};

use super::{
    apt, assert_fetched, cargo, git, npm, pip,
    scene::{Scene, refused},
};

const PROFILE: &str = "names-only";

#[test]
fn tools_fetch_from_their_usual_registries() -> Result<()> {
    let tools = [
        apt::tool(["deb.debian.org", "security.debian.org"]),
        cargo::tool(["index.crates.io", "static.crates.io"]),
        pip::tool(["pypi.org", "files.pythonhosted.org"]),
        npm::tool(["registry.npmjs.org", "codeload.github.com"]),
        git::tool(["github.com", "github.com"]),
    ];
    let scene = Scene::new(&tools)?;
    for tool in tools {
        let fence = tool.fence(&["--profile", PROFILE])?;
        let run = scene.run(&tool, Some(&fence))?;
        assert_fetched(&run, &tool.names.map(str::to_owned).into());
        assert_eq!(refused(&fence.lines()?), BTreeSet::new());
    }
    Ok(())
}

#[test]
fn every_name_of_the_profile_resolves_and_no_other() -> Result<()> {
    let text = include_str!("../../../qfence-user/profiles/names-only.toml");
    let rules = text.split('"').filter_map(|word| word.strip_prefix("tcp:"));
    let names: Vec<_> = rules
        .map(|rule| rule.split_once(':').map(|(name, _)| name))
        .collect::<Option<_>>()
        .context("each rule has ports")?;
    assert!(names.len() > 10, "{names:?}");
    let world = World::new()?;
    world.write_resolv_conf(&format!("nameserver {SERVER_V4}\n"))?;
    let address = IpAddr::from([198, 51, 100, 40]);
    let mut records: Vec<_> = names.iter().map(|&name| (name, address)).collect();
    records.push(("other.example", address));
    let _dns = Dns::start(&world.internet, SERVER_V4, &records)?;

    let mut check = world.host.command(qfence()?);
    check.args(["policy", "check", PROFILE]);
    let checked = to_end(check)?;
    assert_eq!(checked.code(), Some(0), "{checked:?}");

    let fence = Fence::new(PROFILE)?.with(&["--user", "nobody", "--profile", PROFILE]);
    let mut shell = Shell::start(fence.command(&world.host, "sh"))?;
    let queries: Vec<_> = records
        .iter()
        .map(|(name, _)| format!("dns/{SERVER_V4}/{name}"))
        .collect();
    let queries: Vec<_> = queries.iter().map(String::as_str).collect();
    let results = shell.attempt(&queries)?;
    assert_eq!(results.len(), records.len());
    for ((name, _), result) in records.iter().zip(results) {
        let expected = match *name {
            "other.example" => "rcode 3".to_owned(),
            _ => address.to_string(),
        };
        assert!(result.says(&expected), "{name}: {result:?}");
    }
    Ok(())
}

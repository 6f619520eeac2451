//! `cargo fetch`, by HTTPS: a sparse index, and the host of the crates.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};
use tests::debian::run;

use super::{
    fetches_by_names_alone,
    scene::{Names, Tool},
    server::Site,
};

/// The registry that cargo uses if nothing else is configured.
const DEFAULT: &str = "index.crates.io";

/// cargo, as an unprivileged user.
pub(super) fn tool(names: Names) -> Tool {
    Tool {
        names,
        port: 443,
        is_of_root: false,
        publish,
        prepare,
        fetched: |_| vec!["tiny-1.0.0.crate".to_owned()],
    }
}

#[test]
fn cargo_fetches_by_names_alone() -> Result<()> {
    fetches_by_names_alone(tool(["index.crates.example", "static.crates.example"]))
}

fn publish([index, files]: Names, work: &Path, site: &Site) -> Result<()> {
    let root = work.join("tiny-1.0.0");
    fs::create_dir_all(root.join("src"))?;
    fs::write(root.join("src/lib.rs"), "")?;
    fs::write(
        root.join("Cargo.toml"),
        "[package]\nname = \"tiny\"\nversion = \"1.0.0\"\nedition = \"2021\"\n",
    )?;
    let file = site.path(&format!("{files}/crates/tiny/1.0.0/download"))?;
    let archive = file.display().to_string();
    run("tar", ["-czf", &archive, "tiny-1.0.0"], work)?;
    let sum = run("sha256sum", [&archive], work)?;
    let (sum, _) = sum.split_once(' ').context("a sum")?;
    let config = format!("{{\"dl\": \"https://{files}/crates\"}}");
    site.write(&format!("{index}/config.json"), &config)?;
    let entry = format!(
        "{{\"name\":\"tiny\",\"vers\":\"1.0.0\",\"deps\":[],\"cksum\":\"{sum}\",\"features\":{{}},\"yanked\":false}}\n"
    );
    site.write(&format!("{index}/ti/ny/tiny"), &entry)
}

fn prepare([index, _]: Names, dir: &Path, authority: &Path) -> Result<Vec<String>> {
    fs::create_dir(dir.join("src"))?;
    fs::write(dir.join("src/lib.rs"), "")?;
    fs::write(
        dir.join("Cargo.toml"),
        "[package]\nname = \"top\"\nversion = \"1.0.0\"\nedition = \"2021\"\n[dependencies]\ntiny = \"1\"\n",
    )?;
    // cargo's own time-out is longer than a test may take. Without the second option cargo asks again, after pauses.
    let mut config = format!(
        "[http]\ntimeout = 300\ncainfo = \"{}\"\n[net]\nretry = 0\n",
        authority.display()
    );
    if index != DEFAULT {
        config += "[source.crates-io]\nreplace-with = \"mirror\"\n[source.mirror]\n";
        config += &format!("registry = \"sparse+https://{index}/\"\n");
    }
    fs::create_dir(dir.join(".cargo"))?;
    fs::write(dir.join(".cargo/config.toml"), config)?;
    let own = format!("CARGO_HOME={}", dir.join("own").display());
    Ok([&own, "cargo", "fetch"].map(str::to_owned).into())
}

//! `apt-get update`, by HTTP: an archive and its security updates.

use std::{fs, os::unix::fs::chown, path::Path};

use anyhow::{Context as _, Result};
use nix::unistd::User;
use tests::debian::run;

use super::{
    fetches_by_names_alone,
    scene::{Names, Tool},
    server::Site,
};

/// apt's own time-out is longer than a test may take. Without the other options apt asks again, after pauses, and ends
/// with success if an index is missing.
const OPTIONS: &str = "Acquire::http::Timeout=300 Acquire::Retries=0 APT::Update::Error-Mode=any \
                       Dir::Etc::sourceparts=/dev/null Dir::Etc::parts=/dev/null";

/// apt, as root; what fetches is its user `_apt`.
pub(super) fn tool(names: Names) -> Tool {
    Tool {
        names,
        port: 80,
        is_of_root: true,
        publish,
        prepare,
        fetched: |names| {
            let release = |name| format!("{name}_debian_dists_stable_Release");
            names.map(release).into()
        },
    }
}

#[test]
fn apt_fetches_by_names_alone() -> Result<()> {
    fetches_by_names_alone(tool(["deb.example", "security.example"]))
}

fn publish(names: Names, work: &Path, site: &Site) -> Result<()> {
    const INDEX: &str = "main/binary-all/Packages";
    for name in names {
        let dists = format!("{name}/debian/dists/stable");
        let packages = "Package: tiny\nVersion: 1\nArchitecture: all\nFilename: pool/tiny.deb\n\n";
        site.write(&format!("{dists}/{INDEX}"), packages)?;
        let path = site.path(&format!("{dists}/{INDEX}"))?;
        let sum = run("sha256sum", [&path], work)?;
        let (sum, _) = sum.split_once(' ').context("a sum")?;
        let date = run("date", ["-uR"], work)?;
        let release = format!(
            "Suite: stable\nCodename: stable\nArchitectures: all\nComponents: main\nDate: {}\nSHA256:\n {sum} {} {INDEX}\n",
            date.trim().replace("+0000", "UTC"),
            packages.len(),
        );
        site.write(&format!("{dists}/Release"), &release)?;
    }
    Ok(())
}

fn prepare(names: Names, dir: &Path, _: &Path) -> Result<Vec<String>> {
    let sources = names.map(|name| format!("deb [trusted=yes] http://{name}/debian stable main\n"));
    fs::write(dir.join("sources.list"), sources.concat())?;
    fs::write(dir.join("status"), "")?;
    let user = User::from_name("_apt")?.context("there is no user _apt")?;
    for partial in ["state/lists/partial", "cache/archives/partial"] {
        fs::create_dir_all(dir.join(partial))?;
        chown(dir.join(partial), Some(user.uid.as_raw()), None)?;
    }
    let path = |name: &str| dir.join(name).display().to_string();
    let own = [
        format!("Dir::State={}", path("state")),
        format!("Dir::State::status={}", path("status")),
        format!("Dir::Cache={}", path("cache")),
        format!("Dir::Etc::sourcelist={}", path("sources.list")),
    ];
    let mut words = vec!["apt-get".to_owned(), "update".to_owned()];
    for option in OPTIONS.split_whitespace().map(str::to_owned).chain(own) {
        words.extend(["-o".to_owned(), option]);
    }
    Ok(words)
}

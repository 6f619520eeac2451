//! `npm ci`, by HTTPS: a registry, and a second host for one of the packages.

use std::{fs, path::Path};

use anyhow::Result;
use serde_json::json;
use tests::debian::run;

use super::{
    fetches_by_names_alone,
    scene::{Names, Tool},
    server::Site,
};

/// The packages, one of each host.
const PACKAGES: [&str; 2] = ["tiny", "tool"];

/// npm, as an unprivileged user.
pub(super) fn tool(names: Names) -> Tool {
    Tool {
        names,
        port: 443,
        is_of_root: false,
        publish,
        prepare,
        fetched: |_| PACKAGES.map(|package| format!("{package}.js")).into(),
    }
}

#[test]
fn npm_fetches_by_names_alone() -> Result<()> {
    fetches_by_names_alone(tool(["registry.example", "packages.example"]))
}

fn url_path(package: &str) -> String {
    format!("{package}/-/{package}-1.0.0.tgz")
}

fn publish(names: Names, work: &Path, site: &Site) -> Result<()> {
    for (name, package) in names.into_iter().zip(PACKAGES) {
        let dir = work.join(package);
        fs::create_dir_all(dir.join("package"))?;
        let about = json!({ "name": package, "version": "1.0.0" });
        fs::write(dir.join("package/package.json"), about.to_string())?;
        fs::write(dir.join("package").join(format!("{package}.js")), "")?;
        let file = site.path(&format!("{name}/{}", url_path(package)))?;
        run(
            "tar",
            ["-czf", &file.display().to_string(), "package"],
            &dir,
        )?;
    }
    Ok(())
}

fn prepare(names: Names, dir: &Path, authority: &Path) -> Result<Vec<String>> {
    let urls: Vec<_> = names
        .into_iter()
        .zip(PACKAGES)
        .map(|(name, package)| format!("https://{name}/{}", url_path(package)))
        .collect();
    let dependencies = json!({ "tiny": "1.0.0", "tool": urls[1] });
    let about = json!({ "name": "top", "version": "1.0.0", "dependencies": dependencies });
    fs::write(dir.join("package.json"), about.to_string())?;
    let lock = json!({
        "name": "top", "version": "1.0.0", "lockfileVersion": 3, "requires": true,
        "packages": {
            "": about,
            "node_modules/tiny": { "version": "1.0.0", "resolved": urls[0] },
            "node_modules/tool": { "version": "1.0.0", "resolved": urls[1] },
        },
    });
    fs::write(dir.join("package-lock.json"), lock.to_string())?;
    // Without the last option npm asks again, after pauses of up to a minute.
    let config = format!(
        "registry=https://{}/\ncafile={}\nfetch-retries=0\n",
        names[0],
        authority.display()
    );
    fs::write(dir.join(".npmrc"), config)?;
    Ok(["npm", "ci"].map(str::to_owned).into())
}

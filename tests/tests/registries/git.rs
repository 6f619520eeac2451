//! `git clone`, by HTTPS: a repository, and a submodule on a second host.

use std::path::Path;

use anyhow::Result;
use tests::debian::run;

use super::{
    fetches_by_names_alone,
    scene::{Names, Tool},
    server::Site,
};

/// git, as an unprivileged user.
pub(super) fn tool(names: Names) -> Tool {
    Tool {
        names,
        port: 443,
        is_of_root: false,
        publish,
        prepare,
        fetched: |_| ["of-top", "of-module"].map(str::to_owned).into(),
    }
}

#[test]
fn git_fetches_by_names_alone() -> Result<()> {
    fetches_by_names_alone(tool(["git.example", "modules.example"]))
}

/// Two repositories as files, as git serves them where the server knows nothing of git.
fn publish([top, module]: Names, work: &Path, site: &Site) -> Result<()> {
    // Without the configuration of whoever runs the tests.
    let plain = "-i PATH=/usr/local/bin:/usr/bin:/bin HOME=/ GIT_CONFIG_NOSYSTEM=1 git";
    let git = |dir: &str, line: &str| {
        let identity =
            "-c user.name=test -c user.email=test@example.com -c protocol.file.allow=always";
        let words = [plain, identity, line].map(|words| words.split(' '));
        run("env", words.into_iter().flatten(), &work.join(dir))
    };
    for (name, repository) in [(module, "module"), (top, "top")] {
        git(
            "",
            &format!("init --quiet --initial-branch main {repository}"),
        )?;
        std::fs::write(work.join(repository).join(format!("of-{repository}")), "")?;
        if repository == "top" {
            git(
                "top",
                &format!("submodule --quiet add {}/module module", work.display()),
            )?;
            let url = format!("submodule.module.url https://{module}/module.git");
            git("top", &format!("config --file .gitmodules {url}"))?;
        }
        git(repository, "add .")?;
        git(repository, "commit --quiet --message first")?;
        let bare = site.path(&format!("{name}/{repository}.git"))?;
        git(
            "",
            &format!("clone --quiet --bare {repository} {}", bare.display()),
        )?;
        git(
            "",
            &format!("--git-dir {} update-server-info", bare.display()),
        )?;
    }
    Ok(())
}

fn prepare([top, _]: Names, _: &Path, authority: &Path) -> Result<Vec<String>> {
    let authority = format!("GIT_SSL_CAINFO={}", authority.display());
    let url = format!("https://{top}/top.git");
    Ok([
        &authority,
        "git",
        "clone",
        "--recurse-submodules",
        &url,
        "top",
    ]
    .map(str::to_owned)
    .into())
}

//! `pip download`, by HTTPS: the index, and the host of the files.

use std::{fs, path::Path};

use anyhow::Result;
use tests::debian::run;

use super::{
    fetches_by_names_alone,
    scene::{Names, Tool},
    server::Site,
};

const WHEEL: &str = "tiny-1.0-py3-none-any.whl";

/// pip, as an unprivileged user.
pub(super) fn tool(names: Names) -> Tool {
    Tool {
        names,
        port: 443,
        is_of_root: false,
        publish,
        prepare,
        fetched: |_| vec![WHEEL.to_owned()],
    }
}

#[test]
fn pip_fetches_by_names_alone() -> Result<()> {
    fetches_by_names_alone(tool(["pypi.example", "files.example"]))
}

fn publish([index, files]: Names, work: &Path, site: &Site) -> Result<()> {
    for (file, text) in [
        (
            "METADATA",
            "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n",
        ),
        (
            "WHEEL",
            "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        ),
        ("RECORD", ""),
    ] {
        fs::create_dir_all(work.join("tiny-1.0.dist-info"))?;
        fs::write(work.join("tiny-1.0.dist-info").join(file), text)?;
    }
    let file = site.path(&format!("{files}/packages/{WHEEL}"))?;
    let file = file.display().to_string();
    let words = ["-m", "zipfile", "-c", &file, "tiny-1.0.dist-info"];
    run("/usr/bin/python3", words, work)?;
    let page = format!("<!DOCTYPE html><a href=\"https://{files}/packages/{WHEEL}\">{WHEEL}</a>\n");
    site.write(&format!("{index}/simple/tiny/index.html"), &page)
}

fn prepare([index, _]: Names, _: &Path, authority: &Path) -> Result<Vec<String>> {
    // pip's own time-out is longer than a test may take. Without --retries pip asks again, after pauses.
    let common = "/usr/bin/python3 -m pip download --isolated --disable-pip-version-check --no-cache-dir --timeout 300 \
                  --retries 0";
    let mut words: Vec<_> = common.split_whitespace().map(str::to_owned).collect();
    words.extend(["--cert".to_owned(), authority.display().to_string()]);
    words.extend(["--index-url".to_owned(), format!("https://{index}/simple")]);
    words.push("tiny".to_owned());
    Ok(words)
}

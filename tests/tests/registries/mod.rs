//! Tools that fetch packages work in a fence in which nothing is allowed but the names of their registries. With one name
//! less they fail without waiting, and the record has the name.

mod apt;
mod cargo;
mod git;
mod npm;
mod pip;
mod profile;
mod scene;
mod server;

use std::collections::BTreeSet;

use anyhow::Result;
use tests::run::wait_until;

use self::scene::{Run, Scene, Tool, refused};

/// Runs a tool without a fence, in one with both names, and in one without each of them.
fn fetches_by_names_alone(tool: Tool) -> Result<()> {
    let scene = Scene::new(&[tool])?;
    let of = |names: &[&str]| -> BTreeSet<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    };
    let free = scene.run(&tool, None)?;
    assert_fetched(&free, &of(&tool.names));

    let fence = tool.locked(&tool.names)?;
    let fenced = scene.run(&tool, Some(&fence))?;
    assert_fetched(&fenced, &of(&tool.names));
    let lines = fence.lines()?;
    assert_eq!(refused(&lines), of(&[]), "{lines:#?}");
    let is_refused = lines.iter().any(|line| line["protocol"] == "tcp");
    assert!(!is_refused, "{lines:#?}");

    for missing in tool.names {
        let others: Vec<_> = tool
            .names
            .into_iter()
            .filter(|&name| name != missing)
            .collect();
        let fence = tool.locked(&others)?;
        // All time-outs are longer than a run may take.
        let run = scene.run(&tool, Some(&fence))?;
        let code = run.ended.code();
        assert!(code.is_some_and(|code| code != 0), "{missing}: {run:#?}");
        assert!(!run.is_complete, "{missing}: {run:#?}");
        assert!(!run.hosts.contains(missing), "{missing}: {run:#?}");
        wait_until("the name is on record", || {
            Ok(!refused(&fence.lines()?).is_empty())
        })?;
        let lines = fence.lines()?;
        assert_eq!(refused(&lines), of(&[missing]), "{run:#?} {lines:#?}");
        let lookups = lines.iter().filter(|line| line["name"] == missing);
        for line in lookups {
            assert_eq!(line["rule"], "deny any", "{line:#?}");
        }
        let is_refused = lines.iter().any(|line| line["protocol"] == "tcp");
        assert!(!is_refused, "{missing}: {lines:#?}");
    }
    Ok(())
}

fn assert_fetched(run: &Run, hosts: &BTreeSet<String>) {
    assert_eq!(run.ended.code(), Some(0), "{run:#?}");
    assert!(run.is_complete, "{run:#?}");
    assert_eq!(run.hosts, *hosts, "{run:#?}");
}

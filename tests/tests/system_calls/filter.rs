//! Every command has the filter. The internet stays reachable.

use anyhow::{Context as _, Result};
use tests::{
    fence::Fence,
    probe::{self, ProbeResult},
    run::{fenced, to_end},
    world::{GATEWAY_V4, SERVER_V4},
};

use super::Scene;

/// If the command may gain privileges again, the filter is installed before privileges are dropped. Root has it too.
#[test]
fn everybody_has_the_filter() -> Result<()> {
    for options in [
        &["--user", "nobody"][..],
        &["--user", "nobody", "--allow-new-privs"],
        &["--user", "root"],
        &["--user", "root", "--allow-new-privs"],
        &["--user", "nobody", "--monitor"],
        &[
            "--user",
            "nobody",
            "--allow-compat-sockopt",
            "--strict=rights",
        ],
        &["--user", "nobody", "--strict"],
    ] {
        let fence = Fence::new("filter")?.with(options);
        let probe = probe::program()?;
        let probe = probe.to_str().context("a path")?;
        let ended = to_end(fenced(&fence, &[probe, "keys/native/call-out"]))?;
        let outcomes: Vec<ProbeResult> = probe::read_lines(&ended.stdout)?;
        assert!(outcomes[0].failed_with("EPERM"), "{options:?}: {ended:?}");
    }
    Ok(())
}

#[test]
fn the_internet_is_there_all_the_same() -> Result<()> {
    let scene = Scene::new(&["--strict"])?;
    let attempts = [GATEWAY_V4, SERVER_V4].map(|address| format!("ping/{address}"));
    for outcome in scene.inside(&attempts)? {
        assert!(outcome.is_reached(), "{outcome:?}");
    }
    Ok(())
}

/// TIOCSTI types into the terminal, so that the shell outside the fence executes it. The last two return namespaces of
/// processes outside.
#[test]
fn terminals_and_namespaces_of_others_are_not_asked_for() -> Result<()> {
    let scene = Scene::new(&[])?;
    // TIOCSTI, TIOCLINUX, TIOCSETD, SIOCGSKNS, TUNGETDEVNETNS.
    let requests: Vec<_> = ["5412", "541c", "5423", "894c", "54e3"]
        .map(|request| format!("ioctl/{request}"))
        .into();
    for outcome in scene.outside(&requests)? {
        assert!(outcome.failed_with("ENOTTY"), "control: {outcome:?}");
    }
    for outcome in scene.inside(&requests)? {
        assert!(outcome.failed_with("EPERM"), "{outcome:?}");
    }
    // FIONREAD.
    for outcome in scene.inside(&["ioctl/541b".to_owned()])? {
        assert!(outcome.failed_with("ENOTTY"), "{outcome:?}");
    }
    Ok(())
}

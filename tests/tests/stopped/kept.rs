//! What the host was known by when its supervisor was stopped, and cannot be read since, stays in force.

use std::{thread::sleep, time::Duration};

use anyhow::{Result, ensure};
use qfence_user::policy::nat64::{IPV4_ONLY, spell};
use tests::{
    dns::Dns,
    job::wait_for_state,
    run::wait_until,
    terminal::{CTRL_Z, PROMPT},
};

use super::Scene;

const FILE: &str = "qfence/host.toml";
/// An address that the file names, and 192.0.2.10 as the translator spells it.
const NAMED: &str = "198.51.100.77";
const SPELLED: &str = "2001:db8:64::c000:20a";

#[test]
fn the_file_and_the_translators_stay_while_they_cannot_be_read() -> Result<()> {
    what_is_known_stays("known", &[NAMED, SPELLED])
}

#[test]
fn translators_stay_without_the_file_too() -> Result<()> {
    what_is_known_stays("no-file", &[SPELLED])
}

/// The policy refuses these addresses. Without [`NAMED`] there is no file.
fn what_is_known_stays(label: &str, known: &[&str]) -> Result<()> {
    let mut scene = Scene::new(label)?;
    let has_file = known.contains(&NAMED);
    let are_host = |scene: &Scene| -> Result<Vec<bool>> {
        known
            .iter()
            .map(|address| scene.fence.is_refused(&scene.world.host, address))
            .collect()
    };
    if has_file {
        let text = format!("host = [\"{NAMED}\"]\n");
        scene.world.write_etc(FILE, &text)?;
    }
    let prefix = "2001:db8:64::/96".parse()?;
    let revealed = spell(prefix, IPV4_ONLY[0]).map(Into::into);
    let revealed = revealed.ok_or_else(|| anyhow::anyhow!("a prefix of a translator"))?;
    let nameserver = "127.0.0.53".parse()?;
    let resolver = Dns::start(
        &scene.world.host,
        nameserver,
        &[("ipv4only.arpa", revealed)],
    )?;
    let supervisor = scene.launch("", "while read line; do echo \"<$line>\"; done")?;
    wait_until("they are known", || {
        Ok(are_host(&scene)?.iter().all(|is_host| *is_host))
    })?;
    drop(resolver);
    if has_file {
        scene.world.write_etc(FILE, "host = 1\n")?;
        scene.terminal.expect("stay as they were")?;
    }
    scene.terminal.press(CTRL_Z)?;
    scene.terminal.expect(PROMPT)?;
    wait_for_state(supervisor, 'T')?;
    // At once, and after the nameserver was waited for.
    for _ in 0..2 {
        let are_host = are_host(&scene)?;
        ensure!(are_host.iter().all(|is_host| *is_host), "{are_host:?}");
        sleep(Duration::from_secs(3));
    }
    // The control: what can be read is followed.
    scene.world.write_etc(FILE, "nat64 = []\n")?;
    wait_until("they are the internet", || {
        Ok(!are_host(&scene)?.iter().any(|is_host| *is_host))
    })?;
    Ok(())
}

//! The capabilities of the command.

use std::{fs, os::unix::fs::PermissionsExt as _, process::Command};

use anyhow::Result;
use tests::{
    fence::Fence,
    run::{fenced, to_end, without_sudo},
    workspace,
};

#[test]
fn a_user_has_no_capability_and_gains_none() -> Result<()> {
    let dir = tempfile::tempdir()?;
    workspace::make_readable(dir.path())?;
    let id = dir.path().join("id");
    fs::copy("/usr/bin/id", &id)?;
    fs::set_permissions(&id, fs::Permissions::from_mode(0o4755))?;
    let script = format!(
        "grep -E '^(CapEff|CapPrm|CapAmb|NoNewPrivs)' /proc/self/status; {} -u",
        id.display()
    );
    let zero = "0000000000000000";
    let capabilities = format!("CapPrm:\t{zero}\nCapEff:\t{zero}\nCapAmb:\t{zero}\n");
    for (options, last_lines) in [
        (&["--user", "nobody"][..], "NoNewPrivs:\t1\n65534\n"),
        (
            &["--user", "nobody", "--allow-new-privs"],
            "NoNewPrivs:\t0\n0\n",
        ),
    ] {
        let fence = Fence::new("privileges")?.with(options);
        let ended = to_end(fenced(&fence, &["sh", "-c", &script]))?;
        assert_eq!(ended.stdout, format!("{capabilities}{last_lines}"));
    }
    Ok(())
}

/// A caller can arrange that a change of user leaves capabilities: by securebits, which last across exec.
#[test]
fn no_capability_comes_from_the_caller() -> Result<()> {
    let script = "grep -E '^Cap(Inh|Prm|Eff|Amb)' /proc/self/status; \
                  setpriv --dump | grep -E '^Securebits'";
    let kept = [
        "--securebits=+no_setuid_fixup",
        "--inh-caps=+net_admin,+net_raw",
        "--ambient-caps=+net_admin,+net_raw",
    ];
    let locked = ["--securebits=+no_setuid_fixup,+no_setuid_fixup_locked"];
    let run = |arrangement: &[&str], words: &[String]| {
        let mut command = Command::new("setpriv");
        command.args(arrangement).args(words);
        command.args(["sh", "-c", script]);
        without_sudo(&mut command);
        to_end(command)
    };
    let control = ["setpriv", "--reuid=65534", "--clear-groups"].map(str::to_owned);
    let control = run(&kept, &control)?;
    assert!(
        control.stdout.contains("CapEff:\t0000000000003000\n"),
        "control: {control:?}"
    );

    let none = ["Inh", "Prm", "Eff", "Amb"].map(|set| format!("Cap{set}:\t{:016x}\n", 0));
    let none = none.concat();
    let fence = |options: &[&str]| -> Result<Fence> {
        Ok(Fence::new("caller")?
            .with(&["--user", "nobody"])
            .with(options))
    };
    for arrangement in [&kept[..], &kept[1..2], &kept[..2]] {
        for options in [&[][..], &["--allow-new-privs"]] {
            let inside = run(arrangement, &fence(options)?.launcher())?;
            assert_eq!(inside.code(), Some(0), "{inside:?}");
            assert!(inside.stdout.starts_with(&none), "{inside:?}");
            if options.contains(&"--allow-new-privs") {
                assert!(inside.stdout.contains("Securebits: [none]"), "{inside:?}");
            }
        }
    }
    // It matters where there is a way back to root, and only there.
    let inside = run(&locked, &fence(&[])?.launcher())?;
    assert!(inside.stdout.starts_with(&none), "{inside:?}");
    let inside = run(&locked, &fence(&["--allow-new-privs"])?.launcher())?;
    assert_eq!((inside.code(), inside.stdout.as_str()), (Some(125), ""));
    assert_eq!(
        inside.stderr,
        "qfence: error: cannot clear the securebits that keep capabilities for the command: \
         Operation not permitted (os error 1)\n"
    );
    Ok(())
}

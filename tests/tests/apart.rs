//! A test that runs apart has a machine of its own as far as qfence is concerned, and needs nothing of the checkout
//! that its unprivileged user could not reach, wherever the checkout lies.

use std::{
    fs::{self, Permissions},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::Path,
    process::Command,
};

use anyhow::{Context as _, Result};
use tests::{
    namespace::{NOBODY, Namespace},
    probe,
    reachable::{reachable, reachable_below},
    remains::{self, cgroup2_mount},
    run::{Ended, fenced, to_end, wait_until},
    workspace,
};

/// Runs a shell's script apart, as root.
fn apart(script: &str) -> Result<Ended> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_apart"));
    command.args(["sh", "-c", script]);
    to_end(command)
}

#[test]
fn a_test_sees_no_other_tests_fences_and_no_pins_and_cgroups() -> Result<()> {
    let fence = tests::fence::Fence::new("apart")?;
    let mut shell = tests::shell::Shell::start(fenced(&fence, &["sh"]))?;
    remains::ensure_whole(fence.name())?;
    let hierarchy = cgroup2_mount()?;
    let ended = apart(&format!(
        "ls -d /run/qfence /sys/fs/bpf/qfence; find {} -mindepth 1 -type d; echo of {}",
        hierarchy.display(),
        fence.name()
    ))?;
    assert_eq!(ended.stdout, format!("of {}\n", fence.name()));
    assert_eq!(ended.stderr.matches("No such file").count(), 2, "{ended:?}");
    shell.close_input();
    shell.wait()?;
    Ok(())
}

#[test]
fn what_a_test_leaves_behind_ends_with_it() -> Result<()> {
    let hierarchy = cgroup2_mount()?;
    let ended = apart(&format!(
        "mkdir -p {0}/qfence/left || exit 1; sleep 1000 >/dev/null 2>&1 & \
         echo $! >{0}/qfence/left/cgroup.procs && echo $! && exit 3",
        hierarchy.display()
    ))?;
    assert_eq!(ended.code(), Some(3), "{ended:?}");
    let left = Path::new("/proc").join(ended.stdout.trim());
    wait_until("what was left is gone", || Ok(!left.exists()))?;
    let mut names = fs::read_dir(&hierarchy)?.map(|entry| entry.map(|entry| entry.file_name()));
    let prefix = "qfence-test-";
    assert!(names.all(|name| name.is_ok_and(|name| !name.to_string_lossy().starts_with(prefix))));
    Ok(())
}

#[test]
fn nobody_reaches_the_checkout_and_root_does() -> Result<()> {
    let manifest = workspace::root().join("Cargo.toml");
    let read = format!("cat {}", manifest.display());
    let ended = apart(&format!(
        "{read} && setpriv --reuid=nobody --regid=nogroup --clear-groups {read}"
    ))?;
    assert_eq!(ended.stdout, fs::read_to_string(&manifest)?);
    assert!(ended.stderr.contains("Permission denied"), "{ended:?}");
    Ok(())
}

#[test]
fn what_is_in_a_closed_directory_is_copied_for_everybody_and_only_root_changes_it() -> Result<()> {
    let closed = tempfile::tempdir()?;
    fs::set_permissions(closed.path(), Permissions::from_mode(0o700))?;
    let program = closed.path().join("program");
    fs::write(&program, "#!/bin/sh\necho first\n")?;
    workspace::make_readable(&program)?;
    let namespace = Namespace::new()?;
    // The control: the directory is root's alone.
    let direct = namespace.command_as(NOBODY, &program).output();
    assert!(direct.is_err_and(|error| error.kind() == std::io::ErrorKind::PermissionDenied));

    let copies = tempfile::tempdir()?;
    let copies = copies.path().join("copies");
    let mut seen = Vec::new();
    for text in ["first", "second"] {
        fs::write(&program, format!("#!/bin/sh\necho {text}\n"))?;
        let copy = reachable_below(&copies, &[&program])?;
        workspace::make_readable(copies.parent().context("a parent")?)?;
        assert_eq!(
            reachable_below(&copies, &[&program])?,
            copy,
            "it is made once"
        );
        let mut command = namespace.command_as(NOBODY, &copy);
        assert_eq!(probe::output(&mut command)?, format!("{text}\n"));
        for path in copy.ancestors().take(3) {
            let metadata = fs::metadata(path)?;
            assert_eq!(
                (metadata.uid(), metadata.mode() & 0o022),
                (0, 0),
                "{path:?}"
            );
        }
        seen.push(copy);
    }
    // It was built again: nobody is given the old one, which is gone.
    assert_ne!(seen[0], seen[1]);
    assert!(!seen[0].exists());
    Ok(())
}

#[test]
fn a_directory_for_copies_that_others_can_change_is_refused() -> Result<()> {
    let open = tempfile::tempdir()?;
    fs::set_permissions(open.path(), Permissions::from_mode(0o777))?;
    let error = reachable_below(open.path(), &[Path::new("/bin/true")]);
    let error = format!("{:#}", error.err().context("it was taken")?);
    assert!(error.contains("only root can change"), "{error}");
    Ok(())
}

/// The tests' own programs, from wherever they were built.
#[test]
fn the_program_under_test_and_the_probe_are_reached_by_everybody() -> Result<()> {
    let namespace = Namespace::new()?;
    let mut version = namespace.command_as(NOBODY, tests::fence::qfence()?);
    assert!(probe::output(version.arg("--version"))?.starts_with("qfence"));
    let outcomes = probe::run_as(NOBODY, &namespace, &["tcp/127.0.0.1/9"])?;
    assert!(!outcomes[0].is_reached(), "{outcomes:?}");
    assert!(reachable(Path::new("/bin/true"))?.starts_with(tests::reachable::DIRECTORY));
    Ok(())
}

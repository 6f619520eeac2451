//! Runs the programs for frames on the bytes of frames (`BPF_PROG_TEST_RUN`), with the maps of a fence. The tests need
//! root.

mod answers;
mod bed;
mod build;
mod changed;
mod control;
mod host_began;
mod judged;
mod left;
mod recorded;
mod tagged;

/// The same tests again, with programs that read the `sk_buff` by the helper.
#[test]
fn they_hold_by_the_helper_too() {
    use std::{env, process::Command};

    if env::var_os(bed::BY_HELPER).is_some() {
        return;
    }
    let tests = Command::new(env::current_exe().unwrap())
        .arg("kernel::frames::")
        .env(bed::BY_HELPER, "1")
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&tests.stdout);
    assert!(tests.status.success(), "{told}");
    assert!(
        told.contains("left::") && !told.contains(" 0 passed"),
        "{told}"
    );
}

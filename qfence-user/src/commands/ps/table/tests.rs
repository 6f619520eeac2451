use super::*;
use crate::fence::description::{COMMAND, Description};

#[test]
fn ids_of_containers_are_cut() {
    let id = "0123456789ab".repeat(6)[..64].to_owned();
    let cut = abbreviated(&format!("container {id} (oci)"));
    assert_eq!(cut, "container 0123456789ab (oci)");
    let longer = format!("{id}0");
    assert_eq!(abbreviated(&longer), longer);
}

#[test]
fn a_table_has_as_much_of_each_fence_as_can_be_read() {
    let all: Vec<_> = (1..=20_000).map(Pid::from_raw).collect();
    assert_eq!(pids(&[]), "-");
    assert_eq!(pids(&all[..2]), "1,2");
    assert!(pids(&all).ends_with(",15,16,… (20000)"), "{}", pids(&all));
    let description = Description {
        command: vec!["x".repeat(100_000), "y".into()],
        supervisor: 1,
        started: String::new(),
        qemu: None,
        strict: Vec::new(),
        open: Vec::new(),
        hooks: Vec::new(),
        without: Vec::new(),
        devices: Vec::new(),
        wired: None,
        attached: None,
        beneath: None,
    };
    assert!(command(&description).concat().len() < COMMAND + 10);
}

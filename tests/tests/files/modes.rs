//! The modes of what qfence makes, whatever the umask.

use std::process::Command;

use anyhow::Result;
use tests::{
    fence::{qfence, unique_name},
    private::Private,
    run::{to_end, without_sudo},
};

#[test]
fn the_socket_of_the_metrics_is_roots_alone() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let socket = dir.path().join("socket");
    let name = unique_name("socket");
    let mut command = Command::new("sh");
    // The fence sees the socket's file as it is while it is served.
    command.arg("-c").arg(format!(
        "umask 000; exec {} exec --name {name} --log none --metrics unix:{} -- stat -c '%F %a %u' {}",
        qfence()?.display(),
        socket.display(),
        socket.display()
    ));
    without_sudo(&mut command);
    let ended = to_end(command)?;
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    assert_eq!(ended.stdout, "socket 600 0\n", "{ended:?}");
    assert!(!socket.exists());
    Ok(())
}

#[test]
fn the_files_of_a_fence_are_roots_alone_whatever_the_umask() -> Result<()> {
    let host = Private::new()?;
    let look = "stat -c '%n %a' /run/qfence/* /sys/fs/bpf/qfence /sys/fs/bpf/qfence/* /run/qfence";
    let mut command = host.namespace().command("sh");
    command.arg("-c").arg(format!(
        "umask 000; exec {} exec --name vm --log none -- sh -c \"{look}\"",
        qfence()?.display()
    ));
    without_sudo(&mut command);
    let ended = to_end(command)?;
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    let mut lines: Vec<_> = ended.stdout.lines().collect();
    lines.sort_unstable();
    assert_eq!(
        lines,
        [
            "/run/qfence 700",
            "/run/qfence/kernel-offsets 600",
            "/run/qfence/vm.json 600",
            "/run/qfence/vm.log 600",
            "/run/qfence/vm.policy 600",
            "/sys/fs/bpf/qfence 700",
            "/sys/fs/bpf/qfence/vm 700",
        ],
        "{ended:?}"
    );
    Ok(())
}

//! A fence for one tap device is no way to another of the same user, which nobody fences.

use std::process::Command;

use anyhow::{Result, ensure};
use tests::{
    fence::Fence,
    namespace::NOBODY,
    run::{Ended, to_end, without_sudo},
    tap::{
        Header, Link,
        scene::{self, TAP, make_tap},
    },
};

use super::matrix::kind;

/// Opens a tap device by its name.
const OPEN: &str = "
import fcntl, os, struct, sys
device = os.open('/dev/net/tun', os.O_RDWR)
fcntl.ioctl(device, 0x400454ca, struct.pack('16sH22x', sys.argv[1].encode(), 0x1002))
print('open')
";

fn run(mut command: Command, name: &str) -> Result<Ended> {
    command.args(["python3", "-c", OPEN, name]);
    without_sudo(&mut command);
    to_end(command)
}

#[test]
fn the_command_cannot_open_another_device_of_its_user() -> Result<()> {
    let scene = scene::lay_out(kind(Link::Routed, Header::None, false))?;
    make_tap(&scene.host, "tap1", Header::None)?;
    for name in ["tap1", TAP] {
        let ended = run(scene.host.command_as(NOBODY, "/usr/bin/env"), name)?;
        ensure!(ended.stdout == "open\n", "control: {ended:?}");
    }
    let fence = Fence::new("other-tap")?.with(&["--user", "nobody", "--device", TAP]);
    for name in ["tap1", TAP, "tap2"] {
        let ended = run(fence.command(&scene.host, "/usr/bin/env"), name)?;
        ensure!(
            ended.stdout.is_empty() && ended.stderr.contains("PermissionError"),
            "{ended:?}"
        );
    }
    Ok(())
}

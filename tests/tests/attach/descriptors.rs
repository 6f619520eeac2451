//! What the iterator over descriptors finds: devices in every thread, sockets with SO_BROADCAST, and sockets with many
//! descriptors.

use std::{thread::sleep, time::Duration};

use anyhow::{Result, ensure};
use qfence_common::pulse::FOLLOWED_FOR_NS;
use tests::{
    fence::Fence, listener::Listener, listener::Listeners, namespace::Namespace, shell::Shell,
    world::World,
};

use super::scene::{Attached, Place, attach, left};
use crate::redirected::{BEHIND, NAMESERVER, redirect};

/// Starts a Python script in a cgroup, and waits until it prints "ready".
fn start(place: &Place, namespace: &Namespace, script: &str) -> Result<Shell> {
    let path = place.script(script)?;
    let mut shell = place.shell(namespace)?;
    shell.tell(&format!("exec /usr/bin/python3 {}", path.display()))?;
    ensure!(shell.next_line()? == "ready", "{}", shell.stderr());
    Ok(shell)
}

/// Opens /dev/net/tun in the process's first thread, in a thread with a table of its own, or before the first thread ends.
fn holds_tun(how: &str) -> String {
    format!(
        "
import ctypes, os, sys, threading
libc = ctypes.CDLL(None)
def hold():
    if {how:?} == 'thread' and libc.unshare(0x400) != 0:
        sys.exit('unshare')
    fd = -1 if {how:?} == 'nothing' else os.open('/dev/net/tun', os.O_RDWR)
    if {how:?} == 'dead':
        # The first thread has a table of descriptors no more.
        while os.path.exists('/proc/self/fd/%d' % fd):
            pass
    print('ready', flush=True)
    sys.stdin.readline()
    os._exit(0)
if {how:?} == 'dead':
    threading.Thread(target=hold).start()
    libc.syscall(60, 0)
elif {how:?} == 'thread':
    thread = threading.Thread(target=hold)
    thread.start()
    thread.join()
else:
    hold()
"
    )
}

/// A device that gives the target a network of its own is found, whichever thread has it.
#[test]
fn an_open_tap_device_is_found_in_every_thread() -> Result<()> {
    let host = Namespace::new()?;
    for how in ["plain", "thread", "dead"] {
        let fence = Fence::new(&format!("attach-tun-{how}"))?;
        let place = Place::new(&fence)?;
        let _holder = start(&place, &host, &holds_tun(how))?;
        let path = place.path().display().to_string();
        let ended = attach(&fence, &host, &["--cgroup", &path])?;
        ensure!(ended.code() == Some(125), "{how}: {ended:?}");
        for words in ["is /dev/net/tun", "--allow-unfenced-net"] {
            ensure!(ended.stderr.contains(words), "{how}: {ended:?}");
        }
        ensure!(left(&fence).is_empty(), "{how}: {:?}", left(&fence));
        let options = ["--cgroup", &path, "--allow-unfenced-net"];
        let attached = Attached::start(&fence, &host, &options)?;
        let said = attached.stderr();
        ensure!(
            said.contains("NOT FENCED") && said.contains("is /dev/net/tun"),
            "{said}"
        );
    }
    let fence = Fence::new("attach-tun-nothing")?;
    let place = Place::new(&fence)?;
    let _holder = start(&place, &host, &holds_tun("nothing"))?;
    let path = place.path().display().to_string();
    let attached = Attached::start(&fence, &host, &["--cgroup", &path])?;
    ensure!(
        !attached.stderr().contains("NOT FENCED"),
        "{}",
        attached.stderr()
    );
    Ok(())
}

/// Sends a datagram to a broadcast address and then to the address behind it, by sockets that were made before "ready".
const BROADCASTS: &str = "
import array, errno, socket, sys
def made(broadcasts):
    it = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    it.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, broadcasts)
    return it
here, there = socket.socketpair()
one, other, away = made(1), made(0), made(1)
here.sendmsg([b'!'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [away.fileno()]))])
away.close()
print('ready', flush=True)
sys.stdin.readline()
_, rights, _, _ = there.recvmsg(1, 1000)
away = socket.socket(fileno=array.array('i', rights[0][2])[0])
for name, it in [('one', one), ('away', away), ('other', other)]:
    for to in ['198.18.7.255', '198.18.7.1'] + ['203.0.113.99'] * (it == other):
        try:
            it.sendto(b'old', (to, 7777))
            print(name, to, 'sent')
        except OSError as error:
            print(name, to, errno.errorcode[error.errno])
print('done', flush=True)
";

/// Nobody follows the host, which gets a network with a broadcast address: it is not reached by it.
#[test]
fn an_old_socket_does_not_broadcast_when_the_host_is_not_followed() -> Result<()> {
    let world = World::new()?;
    let fence = Fence::new("attach-broadcast")?;
    let place = Place::new(&fence)?;
    let mut target = start(&place, &world.host, BROADCASTS)?;
    let path = place.path().display().to_string();
    let ended = attach(&fence, &world.host, &["--cgroup", &path, "--detach"])?;
    ensure!(ended.code() == Some(0), "{ended:?}");
    world.host_ip("link add qfmend0 type veth peer name qfmend1")?;
    world.host_ip("addr add 198.18.7.1/24 brd + dev qfmend0")?;
    world.host_ip("link set qfmend0 up")?;
    world.host_ip("link set qfmend1 up")?;
    let service = Listener::udp(&world.host, ([0, 0, 0, 0], 7777).into())?;
    // Nobody renews it.
    sleep(Duration::from_nanos(FOLLOWED_FOR_NS) + Duration::from_millis(100));
    target.tell("")?;
    let mut lines = Vec::new();
    loop {
        match target.next_line()? {
            line if line == "done" => break,
            line => lines.push(line),
        }
    }
    let expected = [
        "one 198.18.7.255 ECONNREFUSED",
        "one 198.18.7.1 ECONNREFUSED",
        "away 198.18.7.255 ECONNREFUSED",
        "away 198.18.7.1 ECONNREFUSED",
        "other 198.18.7.255 EACCES",
        "other 198.18.7.1 EPERM",
        // It cannot broadcast, so it is judged by the policy alone.
        "other 203.0.113.99 sent",
    ];
    assert_eq!(lines, expected);
    assert!(service.arrivals().is_empty(), "{:?}", service.arrivals());
    Ok(())
}

/// Asks a nameserver by a socket that was made before "ready", and by a new one.
const QUESTIONS: &str = "
import errno, socket, sys
def ask(it):
    try:
        it.sendto(b'question', (sys.argv[1], 53))
        return 'sent'
    except OSError as error:
        return errno.errorcode[error.errno]
old = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
if ask(old) != 'sent':
    sys.exit('control')
print('ready', flush=True)
sys.stdin.readline()
print('old', ask(old), flush=True)
print('new', ask(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)), flush=True)
";

/// A datagram to the nameserver that the host's NAT redirects leaves for another port. An old socket may have been connected
/// to that port, so that what it sends there by a race would pass for a question.
#[test]
fn an_old_socket_is_not_taken_for_one_that_asks_nameservers_alone() -> Result<()> {
    let world = World::new()?;
    world.write_resolv_conf(&format!("nameserver {NAMESERVER}\n"))?;
    redirect(&world)?;
    let behind = Listeners::everywhere(&world.host, BEHIND)?;
    let fence = Fence::new("attach-question")?;
    let place = Place::new(&fence)?;
    let script = format!("import sys; sys.argv.append('{NAMESERVER}'){QUESTIONS}");
    let mut target = start(&place, &world.host, &script)?;
    assert_eq!(behind.arrivals().len(), 1, "control");
    let path = place.path().display().to_string();
    let _attached = Attached::start(&fence, &world.host, &["--cgroup", &path])?;
    target.tell("")?;
    assert_eq!(target.next_line()?, "old EPERM");
    assert_eq!(target.next_line()?, "new sent");
    // qfence asks it for NAT64 translators.
    let arrivals = behind.arrivals();
    let questions = arrivals
        .iter()
        .filter(|arrival| arrival.bytes == b"question");
    assert_eq!(questions.count(), 2, "{arrivals:?}");
    Ok(())
}

/// Shares a table of many descriptors of one socket among processes.
const MANY: &str = "
import ctypes, os, resource, signal, socket, sys
libc = ctypes.CDLL(None)
_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
most = min(hard - 50, 20000)
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
it = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for _ in range(most):
    os.dup(it.fileno())
for _ in range((1 << 20) // most + 2):
    # CLONE_FILES: the process has the same table.
    if libc.syscall(56, 0x400 | signal.SIGCHLD, 0, 0, 0, 0) == 0:
        libc.prctl(1, signal.SIGKILL)
        signal.pause()
print('ready', flush=True)
sys.stdin.readline()
";

/// More than 2^20 descriptors of sockets do not keep a fence from being made.
#[test]
fn a_million_descriptors_are_looked_at() -> Result<()> {
    let host = Namespace::new()?;
    let fence = Fence::new("attach-many")?;
    let place = Place::new(&fence)?;
    let _target = start(&place, &host, MANY)?;
    let path = place.path().display().to_string();
    let ended = attach(&fence, &host, &["--cgroup", &path, "--detach"])?;
    ensure!(ended.code() == Some(0), "{ended:?}");
    Ok(())
}

//! Arguments that give a guest a network outside the fence, in every spelling, and arguments that do not.

use super::doors;

#[test]
fn every_door_is_found_in_every_spelling() {
    for line in [
        // The position of the type.
        "-netdev tap,id=n",
        "--netdev tap,id=n",
        "-netdev type=tap,id=n",
        "-netdev id=n,type=tap",
        "-netdev user,id=n,type=tap",
        "-netdev ,type=tap",
        r#"-netdev {"type":"tap","id":"n"}"#,
        r#"--netdev {"id":"n","type":"tap"}"#,
        "-nic tap",
        "-nic type=tap,model=e1000",
        "-nic model=e1000,type=tap",
        "-net tap",
        "--net tap,script=no",
        // After other arguments.
        "-snapshot -netdev tap,id=n",
        "-some-new-flag -netdev tap,id=n",
        "-append -netdev -netdev tap,id=n",
        "-m 512 disk.img -netdev tap,id=n",
        // The types.
        "-netdev bridge,id=n,br=br0",
        "-nic bridge",
        "-net bridge,br=virbr0",
        "-netdev vhost-user,id=n,chardev=c",
        "-netdev vhost-vdpa,id=n,vhostdev=/dev/vhost-vdpa-0",
        "-netdev vde,id=n,sock=/run/vde",
        "-netdev netmap,id=n,ifname=vale0:1",
        "-netdev af-xdp,id=n,ifname=eth0",
        "-netdev vmnet-shared,id=n",
        "-netdev from-the-future,id=n",
        "-net channel,7000:null",
        // By descriptor: tap, macvtap, a socket.
        "-netdev tap,id=n,fd=3",
        "-netdev tap,id=n,fds=3:4,vhost=on,vhostfds=5:6",
        "-netdev socket,id=n,fd=3",
        "-net socket,fd=5",
        // By Unix sockets.
        "-netdev stream,id=n,server=off,addr.type=unix,addr.path=/tmp/passt.socket",
        "-netdev stream,id=n,addr.type=fd,addr.str=3",
        "-netdev stream,id=n,addr.type=vsock,addr.cid=2,addr.port=9",
        "-netdev stream,id=n",
        "-netdev dgram,id=n,local.type=unix,local.path=/a,remote.type=unix,remote.path=/b",
        "-netdev dgram,id=n,local.type=inet,local.host=h,remote.type=unix,remote.path=/b",
        "-netdev dgram,id=n,local.type=fd,local.str=3",
        r#"-netdev {"type":"stream","id":"n","addr":{"type":"unix","path":"/tmp/s"}}"#,
        r#"-netdev {"type":"dgram","id":"n","local":{"type":"fd","str":"3"}}"#,
        // Devices.
        "-device vhost-vsock-pci,guest-cid=3",
        "-device vhost-vsock-pci-non-transitional,guest-cid=3",
        "-device vhost-vsock-device,guest-cid=3",
        "-device vhost-vsock-ccw,guest-cid=3",
        "--device driver=vhost-vsock-pci,guest-cid=3",
        "-device guest-cid=3,driver=vhost-vsock-pci",
        r#"-device {"driver":"vhost-vsock-pci","guest-cid":3}"#,
        "-device vhost-user-vsock-pci,chardev=c",
        "-device vhost-user-device-pci,virtio-id=1,chardev=c",
        "-device vhost-vdpa-device-pci,vhostdev=/dev/vhost-vdpa-0",
        "-device vfio-user-pci,socket=/tmp/s",
        "-device vfio-pci,host=01:00.0",
        "-device vfio-pci,host=0000:01:00.0",
        "-device vfio-pci,sysfsdev=/sys/bus/pci/devices/0000:01:00.0",
        "-device vfio-pci,fd=3",
        // Invalid JSON here; QEMU accepts single quotes.
        "-netdev {'type':'tap','id':'n'}",
        "-device {'driver':'e1000'}",
        // guestfwd to another process.
        "-nic user,guestfwd=tcp:10.0.2.9:80-unix:/run/s",
    ] {
        let found = doors(line);
        assert_eq!(found.len(), 1, "{line}: {found:?}");
        assert!(line.ends_with(&found[0]), "{line}: {found:?}");
    }
}

#[test]
fn what_the_fence_holds_is_left_alone() {
    for line in [
        "",
        "-m 512 disk.img",
        "-nic none",
        "-net none",
        "-nic user",
        "-nic model=virtio-net-pci",
        "-net nic,model=e1000 -net user",
        "-netdev user,id=n,hostfwd=tcp::2222-:22,smb=/srv,tftp=/srv,bootfile=x",
        "-netdev user,id=n,guestfwd=tcp:10.0.2.100:80-cmd:netcat",
        "-netdev user,id=n,guestfwd=tcp:10.0.2.100:80-tcp:127.0.0.1:8080",
        "-nic user,id=tap,hostname=tap",
        r#"-netdev {"type":"user","id":"n"}"#,
        "-netdev passt,id=n",
        "-netdev hubport,id=n,hubid=0",
        "-netdev l2tpv3,id=n,src=192.0.2.1,dst=192.0.2.2,udp=on,txsession=1",
        "-netdev socket,id=n,listen=:1234",
        "-netdev socket,id=n,connect=192.0.2.1:1234",
        "-net socket,mcast=230.0.0.1:1234",
        "-netdev socket,id=n,udp=192.0.2.1:1,localaddr=:2",
        "-netdev stream,id=n,server=on,addr.type=inet,addr.host=h,addr.port=1",
        "-netdev dgram,id=n,remote.type=inet,remote.host=224.0.0.1,remote.port=1",
        "-netdev dgram,id=n,local.type=inet,local.host=h,local.port=1",
        r#"-netdev {"type":"stream","id":"n","addr":{"type":"inet","host":"h","port":"1"}}"#,
        "-device virtio-net-pci,netdev=n -device e1000",
        "-device vfio-pci,host=02:00.0",
        "-device vfio-pci,sysfsdev=/sys/bus/mdev/devices/x",
        "-device vhost-user-blk-pci,chardev=c -device vhost-user-fs-pci,chardev=d",
        "-device virtio-vga",
        // QEMU only prints help.
        "-netdev help",
        "-nic ?",
        "-device vhost-vsock-pci,help",
        // Not networks of the guest.
        "-chardev socket,id=c,path=/run/s -serial chardev:c",
        "-monitor unix:/run/m,server=on,wait=off -qmp tcp::4444,server=on",
        "-incoming tcp:0:4444 -vnc :1",
        // Values that look like options.
        "-name -netdev",
        "-append -nic",
        "-append tap",
        "-name tap -fw_cfg name=opt/x,string=tap",
        // Spellings that QEMU does not accept.
        "-netdev=tap",
        "---netdev tap",
        "-netd tap",
    ] {
        assert_eq!(doors(line), [""; 0], "{line}");
    }
}

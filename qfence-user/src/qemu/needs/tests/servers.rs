use super::check;

#[test]
fn a_server_of_a_socket_makes_it_and_a_client_connects() {
    check(&[
        ("-qmp unix:/run/vm/qmp,server=on,wait=off", "make /run/vm"),
        ("-qmp unix:qmp.sock,server,nowait", "make /vm"),
        ("-monitor unix:/run/m", "connect /run/m"),
        ("-monitor unix:./a/../m", "connect /vm/m"),
        ("-serial mon:unix:/run/vm/s,server=on", "make /run/vm"),
        (
            "-serial mon:stdio -monitor none -parallel null -qmp stdio -serial vc:80Cx24C",
            "",
        ),
        (
            "-qmp-pretty tcp:127.0.0.1:4444,server=on,wait=off",
            "listen tcp:4444",
        ),
        ("-monitor telnet::5555,server,nowait", "listen tcp:5555"),
        ("-monitor telnet::5555,server=off", ""),
        ("-serial tcp:[::1]:70,server=on", "listen tcp:70"),
        ("-serial tcp:host:70", ""),
        ("-serial udp:host:53@:54", "listen udp:54"),
        ("-serial udp::53", ""),
        (
            "-chardev socket,id=c,path=/run/vm/c,server=on,wait=off",
            "make /run/vm",
        ),
        ("-chardev socket,id=c,path=/run/c", "connect /run/c"),
        (
            "-chardev socket,id=c,path=/run/c,server=off",
            "connect /run/c",
        ),
        ("-chardev socket,id=c,path=c,abstract=on", "connect @c"),
        ("-chardev socket,id=c,path=c,abstract=on,server=on", ""),
        ("-chardev socket,id=c,fd=3", ""),
        (
            "-chardev socket,id=c,host=0.0.0.0,port=70,server=on",
            "listen tcp:70",
        ),
        (
            "-chardev socket,id=c,port=70,to=80,server=on",
            "listen tcp:70-80",
        ),
        ("-chardev socket,id=c,port=http,server=on", ""),
        ("-chardev socket,id=c,port=0,server=on", ""),
        ("-chardev socket,id=c,host=h,port=70", ""),
        (
            "-chardev udp,id=c,host=h,port=70,localport=71",
            "listen udp:71",
        ),
        (
            "-chardev pipe,id=c,path=p",
            "write /vm/p.in, write /vm/p.out",
        ),
        ("-chardev pipe,id=c,path=both", "write /vm/both"),
        ("-serial pipe:p", "write /vm/p.in, write /vm/p.out"),
        (
            "-chardev socket,id=c -set chardev.c.path=/run/c",
            "connect /run/c",
        ),
        ("-gdb tcp::1235", "listen tcp:1235"),
        ("-gdb tcp:localhost:1235,ipv6=off", "listen tcp:1235"),
        ("-gdb unix:/run/vm/g,server=on,wait=off", "make /run/vm"),
        ("-s -S", "listen tcp:1234"),
        (
            "-object pr-manager-helper,id=p,path=/run/pr",
            "connect /run/pr",
        ),
    ]);
}

#[test]
fn remote_displays_listen() {
    check(&[
        ("-vnc :1", "listen tcp:5901"),
        ("-vnc 127.0.0.1:7,password=on", "listen tcp:5907"),
        ("-vnc [::1]:7", "listen tcp:5907"),
        ("-vnc :0,to=9", "listen tcp:5900-5909"),
        ("-vnc :1,websocket=on", "listen tcp:5701, listen tcp:5901"),
        ("-vnc :1,websocket=5800", "listen tcp:5800, listen tcp:5901"),
        (
            "-vnc :1,websocket=127.0.0.1:5800",
            "listen tcp:5800, listen tcp:5901",
        ),
        ("-vnc unix:/run/vm/vnc", "make /run/vm"),
        (
            "-vnc unix:/run/vm/vnc,websocket=unix:/run/ws/w",
            "make /run/vm, make /run/ws",
        ),
        ("-vnc host:5500,reverse=on", ""),
        ("-vnc none", ""),
        ("-vnc :70000", ""),
        ("-display vnc=:2", "listen tcp:5902"),
        ("-spice port=5930,disable-ticketing=on", "listen tcp:5930"),
        (
            "-spice tls-port=5931,addr=::1,x509-dir=/pki",
            "read /pki, listen tcp:5931",
        ),
        (
            "-spice unix=on,addr=/run/vm/spice,disable-ticketing=on",
            "make /run/vm",
        ),
    ]);
}

#[test]
fn a_guest_that_comes_in_comes_by_a_socket_or_a_file() {
    check(&[
        ("-incoming defer", ""),
        ("-incoming tcp:0:4444", "listen tcp:4444"),
        ("-incoming tcp:[::]:4444,to=4450", "listen tcp:4444-4450"),
        ("-incoming unix:/run/vm/in", "make /run/vm"),
        ("-incoming file:state,offset=0x1000", "read /vm/state"),
        ("-incoming fd:3", ""),
        (
            r#"-incoming {"channel-type":"main","addr":{"transport":"socket","type":"inet","host":"0","port":"4444"}}"#,
            "listen tcp:4444",
        ),
        (
            r#"-incoming {"channel-type":"main","addr":{"transport":"file","filename":"state","offset":0}}"#,
            "read /vm/state",
        ),
        ("-loadvm snapshot", ""),
    ]);
}

#[test]
fn networks_bind_the_ports_that_they_forward() {
    check(&[
        ("-nic user,hostfwd=tcp::2222-:22", "listen tcp:2222"),
        ("-net user,hostfwd=::2222-:22", "listen tcp:2222"),
        (
            "-netdev user,id=n,hostfwd=tcp:127.0.0.1:2222-:22,hostfwd=udp::53-10.0.2.15:53",
            "listen tcp:2222, listen udp:53",
        ),
        (
            r#"-netdev {"type":"user","id":"n","hostfwd":[{"str":"tcp::1-:1"},{"str":"udp::2-:2"}]}"#,
            "listen tcp:1, listen udp:2",
        ),
        ("-nic hostfwd=tcp::2222-:22", "listen tcp:2222"),
        (
            "-nic user,hostfwd=unix:/run/my-vm/ssh-:22",
            "make /run/my-vm",
        ),
        ("-nic user,hostfwd=tcp::0-:22", ""),
        ("-nic user,hostfwd=nonsense -nic user,hostfwd=x:y-z", ""),
        ("-nic user,tftp=/srv,bootfile=x", "read /srv"),
        ("-nic user,guestfwd=tcp:10.0.2.9:1-cmd:cat", ""),
        (
            "-nic user,guestfwd=tcp:10.0.2.9:1-unix:/run/s",
            "connect /run/s",
        ),
        ("-nic user,guestfwd=tcp:10.0.2.9:1-tcp:127.0.0.1:80", ""),
        ("-nic socket,listen=:70", "listen tcp:70"),
        ("-netdev socket,id=n,connect=192.0.2.1:70", ""),
        ("-netdev socket,id=n,mcast=230.0.0.1:70", "listen udp:70"),
        (
            "-netdev socket,id=n,udp=192.0.2.1:1,localaddr=:2",
            "listen udp:2",
        ),
        (
            "-netdev stream,id=n,server=on,addr.type=inet,addr.host=h,addr.port=70",
            "listen tcp:70",
        ),
        (
            "-netdev stream,id=n,server=off,addr.type=unix,addr.path=/run/p",
            "connect /run/p",
        ),
        (
            "-netdev stream,id=n,server=on,addr.type=unix,addr.path=/run/vm/p",
            "make /run/vm",
        ),
        (
            "-netdev dgram,id=n,local.type=unix,local.path=/run/vm/a,remote.type=unix,remote.path=/run/b",
            "make /run/vm, connect /run/b",
        ),
        (
            "-netdev dgram,id=n,local.type=inet,local.host=h,local.port=70",
            "listen udp:70",
        ),
        (
            "-netdev dgram,id=n,remote.type=inet,remote.host=230.0.0.1,remote.port=70",
            "listen udp:70",
        ),
        (
            "-netdev tap,id=n,vhost=on",
            "write /dev/net/tun, write /dev/vhost-net",
        ),
        ("-netdev tap,id=n,fd=9,vhost=on", "write /dev/vhost-net"),
        ("-netdev tap,id=n,fds=9:10", ""),
        ("-nic none -netdev hubport,id=n,hubid=0", ""),
    ]);
}

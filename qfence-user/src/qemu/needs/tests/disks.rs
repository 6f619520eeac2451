use super::check;

#[test]
fn disks_are_written_unless_they_are_read_only() {
    check(&[
        ("disk", "write /vm/disk"),
        ("-enable-kvm disk", "write /vm/disk"),
        ("-hda a -hdd /x/../b", "write /vm/a, write /x/../b"),
        ("-hda ./a//b", "write /vm/a/b"),
        ("-hda with,comma", "write /vm/with,comma"),
        ("-cdrom iso", "read /vm/iso"),
        ("-fda f -fdb g", "write /vm/f, write /vm/g"),
        (
            "-pflash p -mtdblock m -sd s",
            "write /vm/m, write /vm/p, write /vm/s",
        ),
        ("-drive file=d,if=virtio,format=raw", "write /vm/d"),
        ("-drive if=none,id=d,file=a,,b", "write /vm/a,b"),
        ("-drive file=d,readonly=on", "read /vm/d"),
        ("-drive file=d,readonly", "read /vm/d"),
        ("-drive file=d,read-only=true", "read /vm/d"),
        ("-drive file=d,readonly=off", "write /vm/d"),
        ("-drive file=d,media=cdrom", "read /vm/d"),
        (
            "-drive if=pflash,unit=0,readonly=on,file=/usr/share/OVMF/OVMF_CODE.fd",
            "read /usr/share/OVMF/OVMF_CODE.fd",
        ),
        ("-drive file=/dev/sdb,format=raw", "write /dev/sdb"),
        ("-drive file=/dev/sg1,if=none,id=g", "write /dev/sg1"),
        ("-drive file=/dev/fdset/1", ""),
        ("-drive id=d,if=none -set drive.d.file=x", "write /vm/x"),
        ("-drive driver=null-co,id=d", ""),
        (
            "-drive driver=qcow2,file.driver=file,file.filename=d",
            "write /vm/d",
        ),
        (
            "-drive driver=qcow2,file.filename=d,read-only=on",
            "read /vm/d",
        ),
        (
            "-drive file=d,backing.file.filename=base",
            "read /vm/base, write /vm/d",
        ),
        (
            "-drive file=d,backing.driver=raw,backing.file.filename=base",
            "read /vm/base, write /vm/d",
        ),
        ("-drive driver=file,file=nbd:x", "write /vm/nbd:x"),
    ]);
}

#[test]
fn a_snapshot_reads_the_image_and_writes_a_temporary_file() {
    check(&[
        ("-snapshot disk", "read /vm/disk, temporary directory"),
        ("-hda a -snapshot", "read /vm/a, temporary directory"),
        (
            "-drive file=d,snapshot=on",
            "read /vm/d, temporary directory",
        ),
        ("-drive file=d,snapshot", "read /vm/d, temporary directory"),
        ("-snapshot -drive file=d,snapshot=off", "write /vm/d"),
        ("-snapshot -drive file=d", "read /vm/d, temporary directory"),
        (
            "-drive driver=qcow2,file.filename=d,snapshot=on,read-only=off",
            "read /vm/d, temporary directory",
        ),
        // It applies to no -blockdev.
        ("-snapshot -blockdev file,filename=d", "write /vm/d"),
    ]);
}

#[test]
fn block_nodes_are_found_in_both_syntaxes() {
    check(&[
        (
            "-blockdev driver=file,node-name=f,filename=d",
            "write /vm/d",
        ),
        (
            "-blockdev file,node-name=f,filename=d,read-only=on",
            "read /vm/d",
        ),
        (
            "-blockdev driver=qcow2,node-name=q,file.driver=file,file.filename=d",
            "write /vm/d",
        ),
        (
            r#"-blockdev {"driver":"qcow2","node-name":"q","file":{"driver":"file","filename":"d"}}"#,
            "write /vm/d",
        ),
        (
            r#"-blockdev {"driver":"qcow2","read-only":true,"file":{"driver":"file","filename":"d"}}"#,
            "read /vm/d",
        ),
        (
            r#"-blockdev {"driver":"qcow2","file":{"driver":"file","filename":"d","read-only":true}}"#,
            "read /vm/d",
        ),
        (
            r#"-blockdev {"driver":"qcow2","file":{"driver":"file","filename":"d"},"backing":{"driver":"qcow2","file":{"driver":"file","filename":"b"},"backing":null}}"#,
            "read /vm/b, write /vm/d",
        ),
        (
            r#"-blockdev {"driver":"quorum","children":[{"driver":"file","filename":"a"},{"driver":"file","filename":"b"}]}"#,
            "write /vm/a, write /vm/b",
        ),
        (
            "-blockdev driver=host_device,node-name=h,filename=/dev/sdc",
            "write /dev/sdc",
        ),
        (
            "-blockdev driver=host_cdrom,node-name=h,filename=/dev/sr0,read-only=on",
            "read /dev/sr0",
        ),
        (
            "-blockdev driver=nbd,node-name=n,server.type=unix,server.path=/run/nbd",
            "connect /run/nbd",
        ),
        (
            r#"-blockdev {"driver":"nbd","server":{"type":"unix","path":"/run/nbd"},"export":"x"}"#,
            "connect /run/nbd",
        ),
        (
            "-blockdev driver=nbd,server.type=inet,server.host=h,server.port=1",
            "",
        ),
        (
            "-blockdev driver=vvfat,dir=/vm/d,rw=on",
            "write /vm/d, temporary directory",
        ),
        ("-blockdev driver=vvfat,dir=/vm/d", "read /vm/d"),
        (
            "-blockdev driver=nvme,device=0000:01:00.0,namespace=1",
            "write /dev/vfio",
        ),
        (
            "-blockdev driver=virtio-blk-vhost-user,path=/run/v",
            "connect /run/v",
        ),
        (
            "-blockdev driver=file,filename=with:colon",
            "write /vm/with:colon",
        ),
        // A reference to another node.
        ("-blockdev driver=raw,file=f", ""),
        // As libvirt writes it.
        (
            "-blockdev driver=file,filename=iso,node-name=s,auto-read-only=on -blockdev node-name=f,read-only=on,driver=raw,file=s",
            "read /vm/iso",
        ),
        (
            "-blockdev driver=file,filename=d,node-name=s,auto-read-only=on -blockdev node-name=f,read-only=off,driver=raw,file=s",
            "write /vm/d",
        ),
        (
            "-blockdev driver=file,filename=d,node-name=s -blockdev node-name=f,read-only=on,driver=raw,file=s",
            "write /vm/d",
        ),
    ]);
}

#[test]
fn a_name_may_begin_with_a_protocol() {
    check(&[
        ("-hda file:d", "write /vm/d"),
        ("-hda file:/d:e", "write /d:e"),
        ("-hda ./a:b", "write /vm/a:b"),
        ("-hda host_device:/dev/sdb", "write /dev/sdb"),
        ("-hda fat:/vm/d", "read /vm/d"),
        ("-hda fat:rw:/vm/d", "write /vm/d, temporary directory"),
        (
            "-drive file=fat:floppy:16:rw:d",
            "write /vm/d, temporary directory",
        ),
        (
            "-drive file=nbd:unix:/run/nbd:exportname=x",
            "connect /run/nbd",
        ),
        ("-drive file=nbd:unix:/run/nbd", "connect /run/nbd"),
        (
            "-drive file=nbd+unix:///x?socket=/run/nbd",
            "connect /run/nbd",
        ),
        ("-drive file=nbd:host:10809", ""),
        ("-drive file=nbd://host/x", ""),
        ("-drive file=ssh://host/vm/x", ""),
        ("-cdrom http://host/x.iso", ""),
        ("-drive file=iscsi://host/target/1", ""),
        ("-drive file=blkdebug:conf:d", "read /vm/conf, write /vm/d"),
        (
            r#"-hda json:{"driver":"raw","file":{"driver":"file","filename":"d"}}"#,
            "write /vm/d",
        ),
        (
            r#"-drive file=json:{"driver":"nbd",,"server":{"type":"unix",,"path":"/run/n"}}"#,
            "connect /run/n",
        ),
        (
            r#"-cdrom json:{"driver":"file","filename":"d"}"#,
            "read /vm/d",
        ),
    ]);
}

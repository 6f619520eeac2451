use super::check;

#[test]
fn firmware_and_kernels_are_read() {
    check(&[
        (
            "-kernel k -initrd i -append root=/dev/sda -dtb d -shim s",
            "read /vm/d, read /vm/i, read /vm/k, read /vm/s",
        ),
        ("-bios bios.bin", "read /vm/bios.bin"),
        // It is QEMU's own.
        ("-bios vgabios.bin", ""),
        ("-bios ./missing", "read /vm/missing"),
        ("-L firmware", "read /vm/firmware"),
        ("-initrd initrd,odd", "read /vm/initrd,odd"),
        ("-initrd a,b", "read /vm/a, read /vm/a,b, read /vm/b"),
        (
            "-option-rom /vm/rom -option-rom romfile=/vm/rom2",
            "read /vm/rom, read /vm/rom2",
        ),
        ("-device e1000,romfile=/vm/rom", "read /vm/rom"),
        ("-device e1000,romfile=", ""),
        ("-device loader,file=/vm/elf,addr=0", "read /vm/elf"),
        (
            "-acpitable sig=X,data=a:b -acpitable file=c",
            "read /vm/a, read /vm/b, read /vm/c",
        ),
        (
            "-smbios file=s -smbios type=11,path=p,path=q",
            "read /vm/p, read /vm/q, read /vm/s",
        ),
        ("-smbios type=1,manufacturer=file", ""),
        (
            "-fw_cfg name=opt/x,file=f -fw_cfg opt/y,string=file",
            "read /vm/f",
        ),
        ("-boot menu=on,splash=./s.bmp", "read /vm/s.bmp"),
        (
            "-machine q35,kernel=k,initrd=i,dumpdtb=there",
            "read /vm/i, read /vm/k, write /vm/there",
        ),
        ("-M pc,firmware=./f", "read /vm/f"),
        ("-accel kvm,device=/dev/kvm2", "write /dev/kvm2"),
        (
            "-plugin p.so,arg=1 -plugin file=q.so",
            "read /vm/p.so, read /vm/q.so",
        ),
        ("-object secret,id=s,file=key", "read /vm/key"),
        (
            r#"-object {"qom-type":"secret","id":"s","file":"key"}"#,
            "read /vm/key",
        ),
        (
            "-object tls-creds-x509,id=t,dir=/etc/pki,endpoint=server",
            "read /etc/pki",
        ),
        ("-object authz-list-file,id=a,filename=f", "read /vm/f"),
        (
            "-object rng-random,id=r,filename=/dev/hwrng -object rng-builtin,id=b",
            "read /dev/hwrng",
        ),
        ("-object sev-guest,id=s,cbitpos=47", "write /dev/sev"),
    ]);
}

#[test]
fn files_that_are_written_are_made_if_they_are_missing() {
    check(&[
        ("-D log", "write /vm/log, make /vm"),
        ("-D there", "write /vm/there"),
        ("-D /tmp/log.%d", "make /tmp"),
        ("-pidfile /run/vm/pid", "write /run/vm/pid, make /run/vm"),
        // QEMU removes it.
        ("-pidfile present.pid", "write /vm/present.pid, make /vm"),
        (
            "-trace enable=virtio*,file=t,events=e",
            "read /vm/e, write /vm/t, make /vm",
        ),
        ("-trace virtio*", ""),
        (
            "-icount shift=auto,rr=record,rrfile=r",
            "write /vm/r, make /vm",
        ),
        ("-icount shift=auto,rr=replay,rrfile=r", "read /vm/r"),
        (
            "-object filter-dump,id=f,netdev=n,file=/d/f.pcap",
            "write /d/f.pcap, make /d",
        ),
        (
            "-chardev file,id=c,path=there,input-path=i",
            "read /vm/i, write /vm/there",
        ),
        ("-chardev stdio,id=c,logfile=l", "write /vm/l, make /vm"),
        ("-serial file:serial.log", "write /vm/serial.log, make /vm"),
        ("-debugcon file:/d/log,odd", "write /d/log,odd, make /d"),
        ("-audiodev wav,id=a", "write /vm/qemu.wav, make /vm"),
    ]);
}

#[test]
fn memory_is_in_a_directory_or_a_file() {
    check(&[
        ("-mem-path /dev/hugepages", "write /dev/hugepages"),
        (
            "-object memory-backend-file,id=m,size=1G,mem-path=/dev/hugepages",
            "write /dev/hugepages",
        ),
        (
            "-object memory-backend-file,id=m,size=1G,mem-path=memory,share=on",
            "write /vm/memory",
        ),
        (
            "-object memory-backend-file,id=m,size=1G,mem-path=/dev/shm/m",
            "write /dev/shm/m, make /dev/shm",
        ),
        (
            "-object memory-backend-file,id=m,size=1G,mem-path=memory,readonly=on",
            "read /vm/memory",
        ),
        (
            "-object memory-backend-memfd,id=m,size=1G -object memory-backend-ram,id=r,size=1G",
            "",
        ),
        ("-object memory-backend-shm,id=m,size=1G", ""),
    ]);
}

#[test]
fn shares_are_written_unless_they_are_read_only() {
    check(&[
        (
            "-virtfs local,path=s,mount_tag=t,security_model=none",
            "write /vm/s, attributes",
        ),
        (
            "-virtfs local,path=/s,mount_tag=t,security_model=none,readonly=on",
            "read /s",
        ),
        (
            "-fsdev local,id=f,path=/s,security_model=mapped-xattr",
            "write /s, attributes",
        ),
        ("-fsdev proxy,id=f,socket=/run/p", "connect /run/p"),
        ("-fsdev synth,id=f", ""),
        (
            "-chardev socket,id=c,path=/run/fs -device vhost-user-fs-pci,chardev=c,tag=t",
            "connect /run/fs",
        ),
        (
            "-device usb-mtp,rootdir=/s -device usb-mtp,rootdir=/t,readonly=off",
            "read /s, write /t",
        ),
    ]);
}

#[test]
fn devices_of_the_host_are_written() {
    check(&[
        ("-device vfio-pci,host=01:00.0", "write /dev/vfio"),
        (
            "-device vfio-pci,host=01:00.0,iommufd=i -object iommufd,id=i",
            "write /dev/iommu, write /dev/vfio",
        ),
        (
            "-object input-linux,id=k,evdev=/dev/input/event3",
            "write /dev/input/event3",
        ),
        (
            "-device virtio-input-host-pci,evdev=/dev/input/event3",
            "write /dev/input/event3",
        ),
        ("-tpmdev passthrough,id=t", "write /dev/tpm0"),
        (
            "-tpmdev passthrough,id=t,path=/dev/tpm1,cancel-path=/sys/c",
            "write /dev/tpm1, write /sys/c",
        ),
        (
            "-chardev socket,id=c,path=/run/tpm -tpmdev emulator,id=t,chardev=c",
            "connect /run/tpm",
        ),
        (
            "-serial /dev/ttyUSB0 -parallel /dev/parport0",
            "write /dev/parport0, write /dev/ttyUSB0",
        ),
        (
            "-chardev serial,id=s,path=/dev/ttyS0 -chardev tty,id=t,path=/dev/ttyS1",
            "write /dev/ttyS0, write /dev/ttyS1",
        ),
        (
            "-device vhost-vsock-pci,guest-cid=3",
            "write /dev/vhost-vsock",
        ),
        ("-device virtio-net-pci,netdev=n -device e1000", ""),
    ]);
}

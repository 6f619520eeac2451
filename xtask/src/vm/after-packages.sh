# What mmdebstrap runs when all packages are installed; $1 is the machine's root directory.
set -e
echo qfence-vm >"$1/etc/hostname"
echo 127.0.1.1 qfence-vm >>"$1/etc/hosts"
# mmdebstrap leaves the resolvers of the machine that it runs on.
echo nameserver 127.0.0.53 >"$1/etc/resolv.conf"
# The second disk is a tar archive.
cat >"$1/etc/systemd/system/qfence-vm.service" <<END
[Unit]
Description=what the machine was booted for
Wants=multi-user.target
After=multi-user.target

[Service]
Type=exec
WorkingDirectory=/root
ExecStart=/bin/sh -c 'mkdir /opt/qfence && tar -xf /dev/vdb -C /opt/qfence && exec /opt/qfence/main'

[Install]
WantedBy=graphical.target multi-user.target
END
chroot "$1" systemctl enable qfence-vm.service
# One is started where it is tried, as it is wanted there.
chroot "$1" systemctl disable rsyslog.service

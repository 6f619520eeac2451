# mmdebstrap runs this after all packages are installed; $1 is the machine's root directory.
set -e
echo qfence-vm >"$1/etc/hostname"
echo 127.0.1.1 qfence-vm >>"$1/etc/hosts"
# Replaces the file that mmdebstrap copied from the machine that it runs on.
echo nameserver 127.0.0.53 >"$1/etc/resolv.conf"
# The second disk is a tar archive.
cat >"$1/etc/systemd/system/qfence-vm.service" <<END
[Unit]
Description=the commands for this boot
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
# A test starts a daemon of its own, with its own configuration.
chroot "$1" systemctl disable rsyslog.service

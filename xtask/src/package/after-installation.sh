if [ -d /run/systemd/system ]; then
    systemd-tmpfiles --create qfence.conf || true
    systemctl daemon-reload || true
fi

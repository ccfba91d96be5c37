# After installing: user, folders, unit enabled on the first installation ($1 = 1), not started.
systemd-sysusers /usr/lib/sysusers.d/ssds.conf
systemd-tmpfiles --create /usr/lib/tmpfiles.d/ssds.conf || true
if [ "$1" = 1 ]; then
    systemctl enable ssds.service >/dev/null 2>&1 || true
    echo "ssds: enabled, not started. Configure /etc/ssds/ssds.toml, teach a template, then: sudo -u ssds ssds check && sudo systemctl start ssds"
fi
if [ -d /run/systemd/system ]; then systemctl daemon-reload || true; fi

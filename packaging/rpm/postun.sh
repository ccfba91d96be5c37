# After removing or upgrading: a running daemon of the version before is restarted. Results, templates and evidence stay.
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload || true
    if [ "$1" != 0 ] && [ -z "${SSDS_NO_RESTART:-}" ]; then systemctl try-restart --no-block ssds.service || true; fi
fi

# Before removing ($1 = 0; 1 is an upgrade): stop and disable.
if [ "$1" = 0 ] && [ -d /run/systemd/system ]; then systemctl disable --now ssds.service || true; fi

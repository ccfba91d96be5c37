# Before removing ($1 = 0; 1 is an upgrade): stop and disable; an image that is being made has nothing to stop.
if [ "$1" = 0 ]; then
    if [ -d /run/systemd/system ]; then systemctl disable --now ssds.service || true; else systemctl disable ssds.service || true; fi
fi

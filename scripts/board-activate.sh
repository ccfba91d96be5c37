#!/bin/sh
# The board's side of `make deploy`: runs as root on the board, from a folder that holds new.deb, and finishes by itself when the connection
# is lost meanwhile.
#
# usage: board-activate.sh TIMEOUT_S WAIT_ONLINE(yes|no)
#
# Keeps the installed version as a package (previous.deb), installs the new one without restarting the daemon, asks the new program to check
# the board as the daemon's user, restarts the unit, which waits for READY, and waits until the station is online at its broker. Whatever
# fails puts the version before back in force. /etc/ssds/ssds.toml and what is in /var/lib/ssds are not touched. Exit: 0 the new version
# runs; 3 it is installed and waits for its first configuration; 1 it failed and the version before is back; 2 it failed and there is
# nothing to go back to, or going back failed.
set -u
trap '' HUP PIPE
umask 022

dir=$(cd "$(dirname "$0")" && pwd)
limit=$1
wait_online=$2
unit=ssds.service
settings=/etc/ssds/ssds.toml

say() { echo "board: $*"; }
sum() { if [ -f $settings ]; then sha256sum $settings | cut -d' ' -f1; else echo none; fi; }
property() { systemctl show $unit --property "$1" --value; }
installed() { dpkg-query -W -f '${Package} ${Status}\n' ssds ssds-jetson 2>/dev/null | sed -n 's/^\([^ ]*\) install ok installed$/\1/p' | head -n 1; }
install_package() { SSDS_NO_RESTART=1 DEBIAN_FRONTEND=noninteractive dpkg --force-confold --force-confdef --force-downgrade -i "$1"; }

# The installed package as a file again. Its conffile is the pristine one, kept in /usr/share/ssds, so that dpkg goes on telling a person's
# settings from the package's.
repack() { # PACKAGE FILE
    tree=$dir/tree
    rm -rf "$tree"
    mkdir -p "$tree/DEBIAN"
    # Two processes for all files, not three for each: a board is slow at starting programs.
    dpkg-query -L "$1" | while read -r path; do
        if [ -d "$path" ] && [ ! -L "$path" ]; then echo "$tree$path"; fi
    done | xargs -d '\n' mkdir -p || return
    dpkg-query -L "$1" | while read -r path; do
        if [ -L "$path" ] || { [ -e "$path" ] && [ ! -d "$path" ]; }; then echo "$path"; fi
    done | xargs -d '\n' cp -a --parents -t "$tree" || return
    if [ -f /usr/share/ssds/ssds.toml ]; then cp /usr/share/ssds/ssds.toml "$tree$settings"; fi
    dpkg-query -s "$1" | awk '/^(Status|Config-Version|Conffiles):/ { skip = 1; next } /^[^ ]/ { skip = 0 } !skip' > "$tree/DEBIAN/control"
    dpkg-query --control-list "$1" | while read -r part; do
        case $part in list | conffiles) ;; *) dpkg-query --control-show "$1" "$part" > "$tree/DEBIAN/$part" ;; esac
    done
    echo $settings > "$tree/DEBIAN/conffiles"
    for script in preinst postinst prerm postrm; do if [ -f "$tree/DEBIAN/$script" ]; then chmod 0755 "$tree/DEBIAN/$script"; fi; done
    dpkg-deb -Znone --root-owner-group -b "$tree" "$2" > /dev/null && rm -rf "$tree"
}

before=$(sum)
was_active=no
was_online=no
if systemctl --quiet is-active $unit; then
    was_active=yes
    case $(property StatusText) in *"broker online"*) was_online=yes ;; esac
fi
previous=$(installed)
if [ -n "$previous" ]; then
    say "keeping $previous $(dpkg-query -W -f '${Version}' "$previous")"
    repack "$previous" "$dir/previous.deb" || { say "the installed version cannot be kept; nothing was changed"; exit 2; }
fi

go_back() { # RESTARTED
    say "FAILED: $why"
    if [ -z "$previous" ]; then
        [ "$1" = yes ] && systemctl stop $unit
        say "there is no version before; the new one stays installed, stopped"
        exit 2
    fi
    say "going back to $previous $(dpkg-deb -f "$dir/previous.deb" Version)"
    install_package "$dir/previous.deb" > "$dir/back.log" 2>&1 || { cat "$dir/back.log"; say "going back failed; see above"; exit 2; }
    if [ "$1" = yes ] && [ $was_active = yes ]; then
        systemctl reset-failed $unit
        if ! timeout "$limit" systemctl restart $unit; then
            say "the version before does not start either: journalctl -u $unit"
            exit 2
        fi
        say "the version before runs again: $(property StatusText)"
    elif [ "$1" = yes ]; then
        systemctl stop $unit
    else
        say "the daemon was not restarted and went on running"
    fi
    exit 1
}

say "installing $(dpkg-deb -f "$dir/new.deb" Package) $(dpkg-deb -f "$dir/new.deb" Version)"
if ! install_package "$dir/new.deb" > "$dir/install.log" 2>&1; then
    cat "$dir/install.log"
    why="dpkg refused the package"
    go_back no
fi
if [ "$before" != none ] && [ "$(sum)" != "$before" ]; then
    why="installing changed $settings, which must never happen"
    go_back no
fi

say "ssds check, as user ssds:"
timeout "$limit" runuser -u ssds -- /usr/bin/ssds check --config $settings > "$dir/check.log" 2>&1
code=$?
sed 's/^/    /' "$dir/check.log"
if [ $code != 0 ]; then
    if [ $was_active = no ] && [ -z "$previous" ]; then
        say "installed, enabled, not started: configure $settings and teach a template, then: sudo -u ssds ssds check && sudo systemctl start ssds"
        exit 3
    fi
    why="the new version does not accept the board (ssds check ended with $code)"
    go_back no
fi

say "restarting $unit, waiting for READY (at most $limit s)"
started=$(date +%s)
since=$(date '+%Y-%m-%d %H:%M:%S')
if ! timeout "$limit" systemctl restart $unit; then
    journalctl -u $unit --since "$since" --no-pager -o cat 2>/dev/null | tail -n 10 | sed 's/^/    /'
    why="the new version did not become ready within $limit s"
    go_back yes
fi
say "ready after $(($(date +%s) - started)) s"

restarts=$(property NRestarts)
online=no
while [ $(($(date +%s) - started)) -lt "$limit" ]; do
    if ! systemctl --quiet is-active $unit || [ "$(property NRestarts)" != "$restarts" ]; then
        why="the new version became ready and ended again: $(property Result)"
        go_back yes
    fi
    case $(property StatusText) in
        *"broker online"*) online=yes; break ;;
        *"broker off"*) online=off; break ;;
    esac
    [ "$wait_online" = yes ] || { online=not-asked; break; }
    sleep 1
done
case $online in
    yes) say "online at the broker" ;;
    off) say "mqtt.enabled is false: no broker to be online at" ;;
    not-asked) say "not waited for the broker: $(property StatusText)" ;;
    no)
        if [ $was_active = yes ] && [ $was_online = no ]; then
            say "WARNING: not online at the broker, as it was not before either: $(property StatusText)"
        else
            why="the new version is not online at the broker within $limit s: $(property StatusText)"
            go_back yes
        fi
        ;;
esac
systemctl --no-pager --lines 0 status $unit | sed 's/^/    /'
exit 0

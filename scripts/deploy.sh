#!/usr/bin/env bash
# Brings this version to a board by ssh: builds its package, copies it, installs it, lets it check the board, restarts the daemon, waits until it
# is ready and online at its broker, and puts the version before back when that does not come about in time.
#
# usage: scripts/deploy.sh [options] USER@BOARD          (make deploy HOST=USER@BOARD)
#   --dry-run           look at the board, say what would be done, change nothing (not even build)
#   --package FILE      this .deb instead of building one
#   --name NAME         ssds (default) or ssds-jetson (the board's own GPU build of ONNX Runtime)
#   --way quick|release how to build (scripts/cross.sh); default release
#   --timeout SECONDS   time for becoming ready and online; default 180
#   --no-online         do not wait for the broker
#   --port N, --ssh-config FILE, --identity FILE   as ssh's -p, -F, -i
#
# Keys only: ssh runs in batch mode and never asks. Root on the board by itself or by sudo without a password. /etc/ssds/ssds.toml and
# what is in /var/lib/ssds are never touched. Exit: 0 runs; 3 installed, waits for its first configuration; 1 failed and put back; 2 failed,
# nothing to go back to; 64 usage; 69 the board cannot be reached or lacks something.
set -euo pipefail

fail() { code=$1; shift; echo "deploy: $*" >&2; exit "$code"; }
root=$(cd "$(dirname "$0")/.." && pwd)
dry=no package='' name=ssds way=release limit=180 online=yes host=
ssh=(-o BatchMode=yes -o ConnectTimeout=60 -o ServerAliveInterval=10)
while [ $# -gt 0 ]; do
    case $1 in
        --dry-run) dry=yes; shift ;;
        --package) package=${2:?}; shift 2 ;;
        --name) name=${2:?}; shift 2 ;;
        --way) way=${2:?}; shift 2 ;;
        --timeout) limit=${2:?}; shift 2 ;;
        --no-online) online=no; shift ;;
        --port) ssh+=(-o "Port=${2:?}"); shift 2 ;;
        --ssh-config) ssh+=(-F "${2:?}"); shift 2 ;;
        --identity) ssh+=(-i "${2:?}"); shift 2 ;;
        -h | --help) sed -n '2,20s/^# \{0,1\}//p' "$0"; exit 0 ;;
        -*) fail 64 "unknown option '$1'" ;;
        *) [ -z "$host" ] || fail 64 "one board is wanted, got '$host' and '$1'"; host=$1; shift ;;
    esac
done
[ -n "$host" ] || fail 64 "no board: scripts/deploy.sh USER@BOARD, or make deploy HOST=USER@BOARD"
case $limit in '' | *[!0-9]*) fail 64 "--timeout must be whole seconds, got '$limit'" ;; esac
case $name in ssds | ssds-jetson) ;; *) fail 64 "--name must be ssds or ssds-jetson, got '$name'" ;; esac
[ -z "$package" ] || [ -f "$package" ] || fail 66 "no package $package"

work=$(mktemp -d)
ssh+=(-o ControlMaster=auto -o "ControlPath=$work/ssh" -o ControlPersist=60)
on_board() { ssh "${ssh[@]}" "$host" "$@"; }
remote=
leave() {
    if [ -n "$remote" ]; then on_board "rm -rf '$remote'" 2> /dev/null || true; fi
    ssh "${ssh[@]}" -O exit "$host" 2> /dev/null || true
    rm -rf "$work"
}
trap leave EXIT

# -- what the board is --------------------------------------------------------------------------------------------------------------------
facts=$(on_board sh -s <<'FACTS'
echo "arch=$(dpkg --print-architecture 2>/dev/null)"
echo "glibc=$(getconf GNU_LIBC_VERSION 2>/dev/null | cut -d' ' -f2)"
echo "system=$(. /etc/os-release 2>/dev/null; echo "$PRETTY_NAME")"
echo "root=$( { [ "$(id -u)" = 0 ] && echo yes; } || { sudo -n true 2>/dev/null && echo sudo; } )"
echo "systemd=$([ -d /run/systemd/system ] && echo yes)"
echo "installed=$(dpkg-query -W -f '${Package} ${Version} ${db:Status-Status},' ssds ssds-jetson 2>/dev/null | tr ',' '\n' | sed -n 's/ installed$//p')"
echo "active=$(systemctl is-active ssds.service 2>/dev/null)"
echo "status=$(systemctl show ssds.service --property StatusText --value 2>/dev/null)"
echo "free_mb=$(df -Pm /var/tmp | awk 'NR == 2 { print $4 }')"
FACTS
) || fail 69 "$host cannot be reached by ssh with a key (ssh-copy-id $host), or has no shell"
fact() { sed -n "s/^$1=//p" <<< "$facts"; }
arch=$(fact arch)
case $arch in amd64 | arm64) ;; *) fail 69 "$host: wanted a Debian or Ubuntu system on amd64 or arm64, got '$(fact system)' ($arch)" ;; esac
[ "$(fact systemd)" = yes ] || fail 69 "$host does not run systemd"
case $(fact root) in
    yes) sudo= ;;
    sudo) sudo='sudo -n ' ;;
    *) fail 69 "$host: installing needs root: log in as root, or give the user sudo without a password" ;;
esac
[ "$(fact free_mb)" -ge 200 ] || fail 69 "$host: /var/tmp has $(fact free_mb) MB free, wanted 200"
echo "deploy: $host is $(fact system) on $arch, glibc $(fact glibc); installed: $(fact installed | grep . || echo nothing); unit $(fact active)${sudo:+; root by sudo}"
[ -z "$(fact status)" ] || echo "deploy: its daemon says: $(fact status)"

# -- what it gets -------------------------------------------------------------------------------------------------------------------------
if [ $dry = yes ]; then
    [ -n "$package" ] || echo "deploy: would build $name for $arch ($way way)"
    echo "deploy: would copy ${package:-the package} to $host, install it, run ssds check, restart ssds.service, wait $limit s at most for READY$([ $online = no ] || echo " and the broker's online"), and go back to '$(fact installed)' if that fails"
    echo "deploy: dry run, nothing was changed"
    exit 0
fi
if [ -z "$package" ]; then
    WAY=$way SBOM=${SBOM:-no} "$root/scripts/package.sh" deb "$arch" "$name" | tee "$work/package.log"
    package=$(tail -n 1 "$work/package.log")
    case $package in /*) ;; *) package=$root/$package ;; esac
fi
[ "$(dpkg-deb -f "$package" Architecture)" = "$arch" ] || fail 64 "$package is for $(dpkg-deb -f "$package" Architecture), $host is $arch"
needs=$(dpkg-deb -f "$package" Depends | sed -n 's/.*libc6 (>= \([0-9.]*\)).*/\1/p')
if [ -n "$needs" ] && dpkg --compare-versions "$needs" gt "$(fact glibc)"; then
    fail 69 "$package needs glibc $needs, $host has $(fact glibc); build it with --way release"
fi

# -- bring it there -----------------------------------------------------------------------------------------------------------------------
remote=$(on_board 'mktemp -d /var/tmp/ssds-deploy.XXXXXX')
case $remote in /var/tmp/ssds-deploy.*) ;; *) fail 69 "$host: no folder in /var/tmp: '$remote'" ;; esac
echo "deploy: copying $(basename "$package") ($(du -k "$package" | cut -f1) KB)"
scp -q "${ssh[@]}" "$package" "$host:$remote/new.deb"
scp -q "${ssh[@]}" "$root/scripts/board-activate.sh" "$host:$remote/activate.sh"
# From here on the board finishes and tidies up by itself.
folder=$remote
remote=
status=0
on_board "${sudo}sh $folder/activate.sh $limit $online; code=\$?; ${sudo}rm -rf $folder; exit \$code" || status=$?
case $status in
    0) echo "deploy: $host runs $(dpkg-deb -f "$package" Package) $(dpkg-deb -f "$package" Version)" ;;
    3) echo "deploy: installed; $host waits for its first configuration (docs/deploy.md)" ;;
    1) echo "deploy: FAILED; $host is back on the version before" >&2 ;;
    255) echo "deploy: the connection was lost; the board goes on by itself. Look: ssh $host systemctl status ssds" >&2 ;;
    *) echo "deploy: FAILED, and not put back: look at $host" >&2 ;;
esac
exit $status

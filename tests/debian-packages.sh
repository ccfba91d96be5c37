#!/usr/bin/env bash
# Fetches Debian packages of any machine with all that they depend on, without installing anything here: apt with lists, cache and status of its own.
#
# usage: tests/debian-packages.sh DIR arm64|amd64 PACKAGE...
#
# Leaves DIR/cache/archives/*.deb and DIR/log. DEBIAN_MIRROR names another mirror. Exit: 0 fetched, 64 usage, 69 a tool or the network is missing.
set -euo pipefail

fail() { code=$1; shift; echo "debian-packages: $*" >&2; exit "$code"; }
[ $# -ge 3 ] || fail 64 "usage: debian-packages.sh DIR arm64|amd64 PACKAGE..."
apt=$1 arch=$2
shift 2
suite=bookworm
mirror=${DEBIAN_MIRROR:-http://deb.debian.org/debian}
command -v apt-get > /dev/null || fail 69 "apt-get is missing"
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
[ -f $keyring ] || fail 69 "$keyring is missing (package debian-archive-keyring)"

mkdir -p "$apt"/{lists/partial,cache/archives/partial,etc,state}
apt=$(cd "$apt" && pwd)
: > "$apt/state/status"
cat > "$apt/etc/sources.list" <<END
deb [arch=$arch signed-by=$keyring] $mirror $suite main
deb [arch=$arch signed-by=$keyring] $mirror-security $suite-security main
END
apt_get() {
    apt-get -q -o APT::Architecture="$arch" -o APT::Architectures="$arch" -o Dir::Etc::SourceList="$apt/etc/sources.list" -o Dir::Etc::SourceParts=/dev/null \
        -o Dir::State::Lists="$apt/lists" -o Dir::State::Status="$apt/state/status" -o Dir::Cache="$apt/cache" -o Debug::NoLocking=1 \
        -o APT::Install-Recommends=false -o APT::Sandbox::User= -o Acquire::Retries=3 -o Acquire::Languages=none "$@"
}
apt_get update > "$apt/log" 2>&1 || { tail -n 5 "$apt/log" >&2; fail 69 "package lists of $mirror cannot be fetched"; }
apt_get autoclean >> "$apt/log" 2>&1
apt_get -y -d install "$@" >> "$apt/log" 2>&1 || { tail -n 5 "$apt/log" >&2; fail 69 "packages cannot be fetched"; }

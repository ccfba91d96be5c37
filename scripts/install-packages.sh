#!/bin/sh
# Installs the system packages that a purpose needs: `install-packages.sh build|test|cross|package|board|guest ...`.
# As root on Debian or Ubuntu it calls apt-get; otherwise it names what is missing and how to get it.
set -eu

build="libclang-dev pkg-config gcc make python3 ca-certificates"
test="mosquitto mosquitto-clients libaravis-dev libusb-1.0-0-dev"
cross="gcc-aarch64-linux-gnu g++-aarch64-linux-gnu libc6-dev-arm64-cross binutils"
package="dpkg python3-pip binutils gzip"
board="qemu-system-arm qemu-system-x86 qemu-system-data ipxe-qemu kmod cpio e2fsprogs debian-archive-keyring openssh-client mosquitto-clients fakeroot"
guest="qemu-system-x86 busybox-static kmod cpio v4l-utils"

wanted=""
for group in "$@"; do
    case "$group" in
        build) wanted="$wanted $build" ;;
        test) wanted="$wanted $test" ;;
        cross) wanted="$wanted $cross" ;;
        package) wanted="$wanted $package" ;;
        board) wanted="$wanted $board" ;;
        guest) wanted="$wanted $guest" ;;
        *) echo "install-packages: group must be build, test, cross, package, board or guest, got $group" >&2; exit 64 ;;
    esac
done

if ! command -v cargo >/dev/null 2>&1; then
    echo "install-packages: cargo is missing; install a Rust toolchain (https://rustup.rs), version 1.95 or newer" >&2
    exit 69
fi
if ! command -v dpkg-query >/dev/null 2>&1; then
    echo "install-packages: not a Debian or Ubuntu system; make sure you have the equivalents of:$wanted" >&2
    exit 0
fi

missing=""
for package in $wanted; do
    # python3 and make may come from elsewhere than dpkg.
    case "$package" in
        python3 | make | gcc | pkg-config | gzip) command -v "$package" >/dev/null 2>&1 && continue ;;
        python3-pip) python3 -m pip --version >/dev/null 2>&1 && continue ;;
        mosquitto) { command -v mosquitto || test -x /usr/sbin/mosquitto; } >/dev/null 2>&1 && continue ;;
    esac
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' || missing="$missing $package"
done
[ -z "$missing" ] && exit 0

if [ "$(id -u)" = 0 ]; then
    echo "installing:$missing"
    apt-get update -qq
    # shellcheck disable=SC2086
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
else
    echo "install-packages: missing system packages; please run:  sudo apt-get install$missing" >&2
    exit 69
fi

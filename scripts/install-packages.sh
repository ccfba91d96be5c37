#!/bin/sh
# Installs the system packages that purposes need: `install-packages.sh GROUP...`; the groups are the variables below.
# As root on Debian or Ubuntu it calls apt-get; otherwise it names what is missing and how to get it.
set -eu

build="libclang-dev pkg-config gcc make python3 ca-certificates"
test="mosquitto mosquitto-clients libaravis-dev libusb-1.0-0-dev python3-jsonschema"
cross="gcc-aarch64-linux-gnu g++-aarch64-linux-gnu libc6-dev-arm64-cross binutils"
# Rust for another machine, where rustup has none.
rust_arm64="rustc-web libstd-rust-web-dev:arm64"
rust_amd64="rustc-web libstd-rust-web-dev:amd64"
emulate="qemu-user"
package="dpkg python3-pip binutils gzip"
lint="lintian rpm"
board="qemu-system-arm qemu-system-x86 qemu-system-data ipxe-qemu kmod cpio e2fsprogs debian-archive-keyring openssh-client mosquitto-clients fakeroot ansible-core python3-jsonschema"
vulkan="mesa-vulkan-drivers libvulkan1"
guest="qemu-system-x86 busybox-static kmod cpio v4l-utils"

wanted=""
for group in "$@"; do
    case "$group" in
        build) wanted="$wanted $build" ;;
        test) wanted="$wanted $test" ;;
        cross) wanted="$wanted $cross" ;;
        rust-arm64) wanted="$wanted $rust_arm64" ;;
        rust-amd64) wanted="$wanted $rust_amd64" ;;
        emulate) wanted="$wanted $emulate" ;;
        package) wanted="$wanted $package" ;;
        lint) wanted="$wanted $lint" ;;
        board) wanted="$wanted $board" ;;
        guest) wanted="$wanted $guest" ;;
        vulkan) wanted="$wanted $vulkan" ;;
        *) echo "install-packages: group must be build, test, cross, rust-arm64, rust-amd64, emulate, package, lint, board, guest or vulkan, got $group" >&2; exit 64 ;;
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
foreign=$(echo "$missing" | tr ' ' '\n' | sed -n 's/.*://p' | sort -u | grep -vx "$(dpkg --print-architecture)" || true)

if [ "$(id -u)" = 0 ]; then
    echo "installing:$missing"
    for machine in $foreign; do dpkg --add-architecture "$machine"; done
    apt-get update -qq
    # shellcheck disable=SC2086
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
else
    for machine in $foreign; do echo "install-packages: first:  sudo dpkg --add-architecture $machine && sudo apt-get update" >&2; done
    echo "install-packages: missing system packages; please run:  sudo apt-get install$missing" >&2
    exit 69
fi

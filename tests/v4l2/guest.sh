#!/usr/bin/env bash
# Boots a small QEMU guest with the kernel's virtual video device (vivid) and runs the built program on it: tests/v4l2/init is what happens
# inside. `guest.sh OUT SSDS LIBRARY` leaves in OUT what the guest wrote, with `console.log`. GUEST_ARCH is the machine of SSDS and LIBRARY: x86_64
# (with this machine's kernel package, busybox and v4l2-ctl) or aarch64 (all of it from Debian's packages for arm64).
# GUEST_WEBCAM is the port of this machine's loopback interface where tests/it/webcam.rs has a USB webcam to plug in. Ends with 77 and a line beginning with `skipped:` where a tool or the kernel package cannot be had.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
out=$1 ssds=$2 library=$3
arch=${GUEST_ARCH:-x86_64}
cache=${GUEST_CACHE:-$root/target/v4l2}/$arch

skip() { echo "skipped: $*"; exit 77; }
have() { command -v "$1" >/dev/null 2>&1 || skip "$1 is not installed"; }

case $arch in
    x86_64) tools="modprobe depmod dpkg-deb apt-get apt-cache v4l2-ctl busybox bash" machine=(-machine q35 -cpu max) console=ttyS0 ;;
    aarch64) tools="modprobe depmod dpkg-deb" machine=(-machine virt -cpu cortex-a72) console=ttyAMA0 ;;
    *) skip "no guest for $arch" ;;
esac
have "qemu-system-$arch"
for tool in cpio tar $tools; do have "$tool"; done
mkdir -p "$cache"

# The kernel, busybox and v4l2-ctl: unpacked from Debian's packages, never installed.
kernel=$cache/kernel
if [ $arch = x86_64 ]; then
    busybox=$(command -v busybox) control=$(command -v v4l2-ctl) shell=$(command -v bash)
    if ! ls "$kernel"/boot/vmlinuz-* >/dev/null 2>&1; then
        package=$(apt-cache depends linux-image-amd64 2>/dev/null | sed -n 's/^ *Depends: \(linux-image-[0-9].*\)/\1/p' | head -1)
        [ -n "$package" ] || skip "no kernel package for linux-image-amd64 in the package lists"
        work=$(mktemp -d "$cache/get.XXXX")
        (cd "$work" && apt-get download "$package" >/dev/null 2>&1) || { rm -rf "$work"; skip "$package cannot be downloaded"; }
        dpkg-deb -x "$work"/*.deb "$work/kernel"
        rm -rf "$kernel"
        mv "$work/kernel" "$kernel"
        rm -rf "$work"
    fi
else
    busybox=$cache/root/bin/busybox control=$cache/root/usr/bin/v4l2-ctl shell=$cache/root/bin/bash
    if ! ls "$kernel"/boot/vmlinuz-* "$shell" >/dev/null 2>&1; then
        "$root/tests/debian-packages.sh" "$cache/apt" arm64 linux-image-arm64 bash busybox-static v4l-utils libc6 libgcc-s1 || skip "Debian's packages for arm64 cannot be fetched"
        rm -rf "$cache/root" "$kernel" "$kernel.new"
        for package in "$cache"/apt/cache/archives/*.deb; do
            case $(basename "$package") in
                linux-image-*) dpkg-deb -x "$package" "$kernel.new" ;;
                *) dpkg-deb -x "$package" "$cache/root" ;;
            esac
        done
        mv "$kernel.new" "$kernel"
    fi
fi
{ file -L "$busybox" | grep -q static || ldd "$busybox" 2>&1 | grep -q 'not a dynamic'; } 2>/dev/null || skip "busybox is not static (package busybox-static)"
version=$(basename "$(ls -d "$kernel"/lib/modules/* | head -1)")
[ -e "$kernel/lib/modules/$version/modules.dep" ] || depmod -b "$kernel" "$version"

# The guest's files, all in memory: busybox, the drivers, the program with its libraries, the network, the demo's template.
tree=$(mktemp -d "$cache/tree.XXXX")
trap 'rm -rf "$tree"' EXIT
mkdir -p "$tree"/{bin,proc,sys,dev,out,tmp,run,data,"lib/modules/$version"}
cp "$busybox" "$tree/bin/busybox"
for module in vivid virtio_blk virtio_pci virtio_net vhci_hcd uvcvideo; do
    modprobe -d "$kernel" -S "$version" --show-depends "$module"
done | sed -n 's/^insmod \([^ ]*\).*/\1/p' | sort -u | while read -r file; do
    to="$tree/lib/modules/$version/${file#*"/lib/modules/$version/"}"
    mkdir -p "$(dirname "$to")"
    cp "$file" "$to"
done
cp "$kernel/lib/modules/$version/"modules.{builtin,builtin.modinfo,order} "$tree/lib/modules/$version/"
depmod -b "$tree" "$version"
cp "$ssds" "$tree/bin/ssds"
strip "$tree/bin/ssds" 2>/dev/null || true
cp "$control" "$tree/bin/v4l2-ctl"
cp "$shell" "$tree/bin/bash"
cp "$library" "$tree/data/libonnxruntime.so"
if [ $arch = x86_64 ]; then
    for program in "$tree/bin/ssds" "$tree/bin/v4l2-ctl" "$tree/bin/bash" "$library"; do
        ldd "$program" | awk '/=> \//{print $3} /^[ \t]*\/.*ld-linux/{print $1}'
    done | sort -u | while read -r file; do
        mkdir -p "$tree$(dirname "$file")"
        cp -L "$file" "$tree$file"
    done
else
    # Loaders cannot be asked across machines: every library of the packages goes along.
    (cd "$cache/root" && find lib usr/lib -name '*.so*' -print0 | cpio -0 -p -d --quiet "$tree")
fi
cp "$root"/models/ssds-tiny.{onnx,toml} "$tree/data/"
cp "$here/init" "$tree/init"
chmod +x "$tree/init"
(cd "$tree" && find . -print0 | cpio -0 -o -H newc --quiet) > "$cache/initrd"

# Results come back on a raw disk, as a tar archive.
truncate -s 0 "$cache/disk" && truncate -s 256M "$cache/disk"
mkdir -p "$out"
network="-nic none"
[ -z "${GUEST_WEBCAM:-}" ] || network="-nic user,model=virtio-net-pci"
# x86-64 with -cpu max: ONNX Runtime wants AVX where it can have it. No network but the webcam's, no disk of this machine's.
# shellcheck disable=SC2086
timeout "${GUEST_SECONDS:-900}" "qemu-system-$arch" "${machine[@]}" -accel tcg,thread=multi -smp 2 -m 1024 -nographic -no-reboot $network \
    -kernel "$kernel/boot/vmlinuz-$version" -initrd "$cache/initrd" \
    -append "console=$console quiet no_timer_check panic=-1 webcam=${GUEST_WEBCAM:-} ${GUEST_ARGS:-}" \
    -drive "file=$cache/disk,if=virtio,format=raw" </dev/null > "$out/console.log" 2>&1 || {
    tail -30 "$out/console.log"
    echo "guest.sh: the guest did not end by itself"
    exit 1
}
tar -x -C "$out" --strip-components=1 -f "$cache/disk" || { tail -30 "$out/console.log"; echo "guest.sh: the guest left no results"; exit 1; }

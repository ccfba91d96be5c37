#!/usr/bin/env bash
# Boots a small QEMU guest with the kernel's virtual video device (vivid) and runs the built program on it: tests/v4l2/init is what happens
# inside. `guest.sh OUT SSDS LIBRARY` leaves in OUT what the guest wrote, with `console.log`.
# Ends with 77 and a line beginning with `skipped:` where a tool or the kernel package cannot be had.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
out=$1 ssds=$2 library=$3
arch=${GUEST_ARCH:-x86_64}
cache=${GUEST_CACHE:-$root/target/v4l2}/$arch

skip() { echo "skipped: $*"; exit 77; }
have() { command -v "$1" >/dev/null 2>&1 || skip "$1 is not installed"; }

case $arch in
    x86_64) debian=amd64 console=ttyS0 ;;
    *) skip "no guest for $arch" ;;
esac
have "qemu-system-$arch"
for tool in cpio modprobe depmod dpkg-deb apt-get apt-cache v4l2-ctl tar busybox; do have "$tool"; done
file -L "$(command -v busybox)" 2>/dev/null | grep -q static || ldd "$(command -v busybox)" 2>&1 | grep -q 'not a dynamic' || skip "busybox is not static (package busybox-static)"

# The kernel: unpacked from Debian's package, never installed.
mkdir -p "$cache"
if ! ls "$cache"/kernel/boot/vmlinuz-* >/dev/null 2>&1; then
    package=$(apt-cache depends "linux-image-$debian" 2>/dev/null | sed -n 's/^ *Depends: \(linux-image-[0-9].*\)/\1/p' | head -1)
    [ -n "$package" ] || skip "no kernel package for linux-image-$debian in the package lists"
    work=$(mktemp -d "$cache/get.XXXX")
    (cd "$work" && apt-get download "$package" >/dev/null 2>&1) || { rm -rf "$work"; skip "$package cannot be downloaded"; }
    dpkg-deb -x "$work"/*.deb "$work/kernel"
    rm -rf "$cache/kernel"
    mv "$work/kernel" "$cache/kernel"
    rm -rf "$work"
fi
version=$(basename "$(ls -d "$cache"/kernel/lib/modules/* | head -1)")
[ -e "$cache/kernel/lib/modules/$version/modules.dep" ] || depmod -b "$cache/kernel" "$version"

# The guest's files, all in memory: busybox, the drivers, the program with its libraries, the network, the demo's template.
tree=$(mktemp -d "$cache/tree.XXXX")
trap 'rm -rf "$tree"' EXIT
mkdir -p "$tree"/{bin,proc,sys,dev,out,tmp,run,data,"lib/modules/$version"}
cp "$(command -v busybox)" "$tree/bin/busybox"
for module in vivid virtio_blk virtio_pci; do
    modprobe -d "$cache/kernel" -S "$version" --show-depends "$module"
done | sed -n 's/^insmod \([^ ]*\).*/\1/p' | sort -u | while read -r file; do
    to="$tree/lib/modules/$version/${file#*"/lib/modules/$version/"}"
    mkdir -p "$(dirname "$to")"
    cp "$file" "$to"
done
cp "$cache/kernel/lib/modules/$version/"modules.{builtin,builtin.modinfo,order} "$tree/lib/modules/$version/"
depmod -b "$tree" "$version"
cp "$ssds" "$tree/bin/ssds"
strip "$tree/bin/ssds" 2>/dev/null || true
cp "$(command -v v4l2-ctl)" "$tree/bin/v4l2-ctl"
cp "$library" "$tree/data/libonnxruntime.so"
for program in "$tree/bin/ssds" "$tree/bin/v4l2-ctl" "$library"; do
    ldd "$program" | awk '/=> \//{print $3} /^[ \t]*\/.*ld-linux/{print $1}'
done | sort -u | while read -r file; do
    mkdir -p "$tree$(dirname "$file")"
    cp -L "$file" "$tree$file"
done
cp "$root/models/ssds.onnx" "$root/models/ssds.toml" "$tree/data/"
cp "$here/init" "$tree/init"
chmod +x "$tree/init"
(cd "$tree" && find . -print0 | cpio -0 -o -H newc --quiet) > "$cache/initrd"

# Results come back on a raw disk, as a tar archive.
truncate -s 0 "$cache/disk" && truncate -s 256M "$cache/disk"
mkdir -p "$out"
# -cpu max: ONNX Runtime wants AVX where it can have it. No network, no disk of this machine's.
timeout "${GUEST_SECONDS:-900}" "qemu-system-$arch" -machine q35 -accel tcg,thread=multi -cpu max -smp 2 -m 1024 -nographic -no-reboot -nic none \
    -kernel "$cache/kernel/boot/vmlinuz-$version" -initrd "$cache/initrd" \
    -append "console=$console quiet no_timer_check panic=-1 ${GUEST_ARGS:-}" \
    -drive "file=$cache/disk,if=virtio,format=raw" </dev/null > "$out/console.log" 2>&1 || {
    tail -30 "$out/console.log"
    echo "guest.sh: the guest did not end by itself"
    exit 1
}
tar -x -C "$out" --strip-components=1 -f "$cache/disk" || { tail -30 "$out/console.log"; echo "guest.sh: the guest left no results"; exit 1; }

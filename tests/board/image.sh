#!/usr/bin/env bash
# Makes the virtual board: a Debian root file system of the asked machine, kernel and initramfs from Debian's packages, unpacked without installing anything
# on this machine and without root (fakeroot does where this is not root).
#
# usage: tests/board/image.sh DIR [arm64|amd64]
#
# DIR gets vmlinuz, initrd.img, root.img (raw ext4), key and key.pub (ssh), known_hosts-key (the guest's host key). Made anew only when
# this script has changed. The guest: systemd, sshd on 22, mosquitto on 1883, the kernel's virtual camera vivid as /dev/video0, user `board`
# with sudo, Python for Ansible, dpkg's database filled in. Exit: 0 made or there, 69 a tool or the network is missing, 73 cannot write.
set -euo pipefail

fail() { code=$1; shift; echo "board image: $*" >&2; exit "$code"; }
[ $# = 1 ] || [ $# = 2 ] || fail 64 "usage: image.sh DIR [arm64|amd64]"
arch=${2:-arm64}
case $arch in
    arm64) kernel_package=linux-image-arm64 console=ttyAMA0 ;;
    amd64) kernel_package=linux-image-amd64 console=ttyS0 ;;
    *) fail 64 "the board must be arm64 or amd64, got '$arch'" ;;
esac
self=$(cd "$(dirname "$0")" && pwd)/$(basename "$0")
disk_mb=1500
packages="base-files base-passwd bash coreutils dash debianutils diffutils dpkg findutils grep gzip hostname libpam-runtime
    libpam-modules ncurses-base ncurses-bin perl-base sed tar util-linux netbase adduser systemd systemd-sysv udev kmod mount mosquitto mosquitto-clients openssh-server sudo iproute2 procps login passwd
    libc-bin v4l-utils init-system-helpers busybox-static ca-certificates openssl mawk python3 $kernel_package"

for tool in apt-get dpkg-deb mke2fs depmod modprobe cpio ssh-keygen; do
    PATH=$PATH:/usr/sbin:/sbin command -v $tool > /dev/null || fail 69 "$tool is missing (scripts/install-packages.sh board)"
done
export PATH=$PATH:/usr/sbin:/sbin
mkdir -p "$1" || fail 73 "cannot create $1"
dir=$(cd "$1" && pwd)

stamp="$(cat "$self" "$(dirname "$self")/../debian-packages.sh" | sha256sum | cut -d' ' -f1) $arch"
if [ -f "$dir/stamp" ] && [ "$(cat "$dir/stamp")" = "$stamp" ] && [ -f "$dir/root.img" ]; then
    echo "board image: $dir is up to date"
    exit 0
fi
rm -f "$dir/stamp"

if [ "$(id -u)" != 0 ] && [ -z "${FAKEROOTKEY:-}" ]; then
    command -v fakeroot > /dev/null || fail 69 "fakeroot is missing, and this is not root"
    exec fakeroot -- "$self" "$dir" "$arch"
fi

# -- packages -----------------------------------------------------------------------------------------------------------------------
apt=$dir/apt
# shellcheck disable=SC2086
"$(dirname "$self")/../debian-packages.sh" "$apt" "$arch" $packages || exit $?
echo "board image: $(find "$apt/cache/archives" -name '*.deb' | wc -l) packages, $(du -sm "$apt/cache/archives" | cut -f1) MB"

# -- root file system ---------------------------------------------------------------------------------------------------------------
root=$dir/root
rm -rf "$root" "$dir/kernel"
mkdir -p "$root" "$dir/kernel"
mkdir -p "$root/var/lib/dpkg/info" "$root/var/lib/dpkg/updates" "$root/var/lib/dpkg/triggers"
for deb in "$apt"/cache/archives/*.deb; do
    case $(basename "$deb") in
        linux-image-*) dpkg-deb -x "$deb" "$dir/kernel"; continue ;;
    esac
    dpkg-deb -x "$deb" "$root"
    # dpkg's own database: as if these had been installed, so that packages can be installed and removed in the guest.
    control=$(mktemp -d)
    dpkg-deb -e "$deb" "$control"
    name=$(dpkg-deb -f "$deb" Package)
    { sed '1a Status: install ok installed' "$control/control" | sed '/^Conffiles:/d'; echo; } >> "$root/var/lib/dpkg/status"
    suffix=
    [ "$(dpkg-deb -f "$deb" Multi-Arch)" = same ] && suffix=:$arch
    dpkg-deb --fsys-tarfile "$deb" | tar -t | sed -e 's#^\./#/#' -e 's#/$##' -e 's#^$#/.#' > "$root/var/lib/dpkg/info/$name$suffix.list"
    rm -rf "$control"
done
echo 1 > "$root/var/lib/dpkg/info/format"
: > "$root/var/lib/dpkg/available"
echo "$arch" > "$root/var/lib/dpkg/arch"

# One /usr: the packages still carry /bin, /sbin and /lib.
for part in bin sbin lib lib64; do
    if [ "$part" = lib64 ] && [ ! -e "$root/lib64" ]; then continue; fi
    if [ -d "$root/$part" ] && [ ! -L "$root/$part" ]; then
        mkdir -p "$root/usr/$part"
        cp -a --remove-destination "$root/$part/." "$root/usr/$part/"
        rm -rf "${root:?}/$part"
    fi
    ln -sfn usr/$part "$root/$part"
done

# What the packages' scripts would have made.
cp "$root/usr/share/base-passwd/passwd.master" "$root/etc/passwd"
cp "$root/usr/share/base-passwd/group.master" "$root/etc/group"
cat >> "$root/etc/passwd" <<'END'
sshd:x:100:65534::/run/sshd:/usr/sbin/nologin
mosquitto:x:101:101::/var/lib/mosquitto:/usr/sbin/nologin
systemd-network:x:102:102::/:/usr/sbin/nologin
board:x:1000:1000::/home/board:/bin/bash
END
cat >> "$root/etc/group" <<'END'
mosquitto:x:101:
systemd-network:x:102:
systemd-journal:x:103:
input:x:104:
render:x:105:
kvm:x:106:
sgx:x:107:
board:x:1000:
END
sed 's/^\([^:]*\):.*/\1:*:19000:0:99999:7:::/' "$root/etc/passwd" > "$root/etc/shadow"
sed 's/^\([^:]*\):.*/\1:*::/' "$root/etc/group" > "$root/etc/gshadow"
chmod 0640 "$root/etc/shadow" "$root/etc/gshadow"
echo ssds-board > "$root/etc/hostname"
printf '127.0.0.1 localhost ssds-board\n' > "$root/etc/hosts"
echo '/dev/vda / ext4 rw,noatime 0 1' > "$root/etc/fstab"
: > "$root/etc/machine-id"
ln -sf mawk "$root/usr/bin/awk"
for what in auth account password session session-noninteractive; do
    case $what in
        auth) line="auth sufficient pam_rootok.so
auth required pam_unix.so" ;;
        account) line="account required pam_unix.so" ;;
        password) line="password required pam_unix.so" ;;
        *) line="session required pam_unix.so" ;;
    esac
    echo "$line" > "$root/etc/pam.d/common-$what"
done

# sshd by key only; the guest's host key is made here, so that the host knows it.
rm -f "$dir"/key "$dir"/key.pub "$dir"/host "$dir"/host.pub
ssh-keygen -q -t ed25519 -N '' -C board-test -f "$dir/key"
ssh-keygen -q -t ed25519 -N '' -C board -f "$dir/host"
mkdir -p "$root/etc/ssh/sshd_config.d" "$root/root/.ssh" "$root/home/board/.ssh"
install -m 0600 "$dir/host" "$root/etc/ssh/ssh_host_ed25519_key"
install -m 0644 "$dir/host.pub" "$root/etc/ssh/ssh_host_ed25519_key.pub"
printf '[127.0.0.1]:@PORT@ %s\n' "$(cut -d' ' -f1,2 "$dir/host.pub")" > "$dir/known_hosts.in"
cp "$root/usr/share/openssh/sshd_config" "$root/etc/ssh/sshd_config"
printf 'PasswordAuthentication no\nUseDNS no\nUsePAM no\nHostKey /etc/ssh/ssh_host_ed25519_key\n' > "$root/etc/ssh/sshd_config.d/board.conf"
for home in "$root/root" "$root/home/board"; do
    install -m 0600 "$dir/key.pub" "$home/.ssh/authorized_keys"
    chmod 0700 "$home/.ssh"
done
chown -R 1000:1000 "$root/home/board"
install -m 0440 /dev/null "$root/etc/sudoers.d/board"
echo 'board ALL=(ALL) NOPASSWD: ALL' > "$root/etc/sudoers.d/board"
chmod 0440 "$root/etc/sudoers.d/board"

# The broker, for stations in the guest and subscribers on the host.
mkdir -p "$root/etc/mosquitto/conf.d" "$root/var/lib/mosquitto" "$root/var/log/mosquitto"
printf 'listener 1883 0.0.0.0\nallow_anonymous true\nmax_queued_messages 0\nautosave_interval 5\n' > "$root/etc/mosquitto/conf.d/board.conf"
chown -R 101:101 "$root/var/lib/mosquitto" "$root/var/log/mosquitto"
install -d -m 0755 "$root/var/lib/systemd/linger"

# Units: network by a static address (QEMU's user network), no console login, nothing that waits for hardware.
mkdir -p "$root/etc/systemd/system/multi-user.target.wants" "$root/etc/systemd/system/sysinit.target.wants"
wants=$root/etc/systemd/system/multi-user.target.wants
ln -sf /lib/systemd/system/ssh.service "$wants/ssh.service"
ln -sf /lib/systemd/system/mosquitto.service "$wants/mosquitto.service"
cat > "$root/etc/systemd/system/board-network.service" <<'END'
[Unit]
Description=Static address
Before=network.target network-online.target ssh.service mosquitto.service
DefaultDependencies=no
After=systemd-modules-load.service local-fs.target
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/bin/ip link set lo up
ExecStart=/usr/bin/sh -c 'i=$$(ls /sys/class/net | grep -v lo | head -n 1); ip link set $$i up; ip addr add 10.0.2.15/24 dev $$i; ip route add default via 10.0.2.2'
END
ln -sf ../board-network.service "$wants/board-network.service"
for unit in getty@tty1.service serial-getty@$console.service systemd-pstore.service systemd-hwdb-update.service e2scrub_reap.service \
    apt-daily.timer apt-daily-upgrade.timer systemd-networkd-wait-online.service systemd-logind.service getty.target dbus.service dbus.socket \
    systemd-rfkill.socket systemd-machine-id-commit.service man-db.timer fstrim.timer e2scrub_all.timer dpkg-db-backup.timer; do
    ln -sf /dev/null "$root/etc/systemd/system/$unit"
done
ln -sf /lib/systemd/system/multi-user.target "$root/etc/systemd/system/default.target"
# Every reload of systemd runs all generators: none but fstab's has anything to say here.
mkdir -p "$root/etc/systemd/system-generators"
for generator in cryptsetup debug getty gpt-auto hibernate-resume integritysetup rc-local run system-update sysv veritysetup; do
    ln -sf /dev/null "$root/etc/systemd/system-generators/systemd-$generator-generator"
done
mkdir -p "$root/var/log/journal" "$root/etc/systemd/journald.conf.d"
printf '[Journal]\nStorage=persistent\nForwardToConsole=no\nSystemMaxUse=64M\n' > "$root/etc/systemd/journald.conf.d/board.conf"

# The camera: one capture node, webcam input; the node belongs to group video by udev's own rules.
echo vivid > "$root/etc/modules-load.d/vivid.conf"
echo 'options vivid n_devs=1 node_types=0x1 num_inputs=1 input_types=0' > "$root/etc/modprobe.d/vivid.conf"

# -- kernel, modules, initramfs -----------------------------------------------------------------------------------------------------
kernel=$(ls "$dir/kernel/boot" | sed -n 's/^vmlinuz-//p' | sort -V | tail -n 1)
[ -n "$kernel" ] || fail 69 "no kernel among the packages"
mkdir -p "$dir/kernel/usr"
[ -e "$dir/kernel/usr/lib" ] || ln -s ../lib "$dir/kernel/usr/lib"
depmod -b "$dir/kernel" "$kernel"
needs() { modprobe -d "$dir/kernel" -S "$kernel" --show-depends "$1" | sed -n 's/^insmod \([^ ]*\).*/\1/p'; }
copy_module() { # FILE TREE
    local relative=${1#"$dir/kernel"}
    relative=${relative#/usr}
    mkdir -p "$2/usr$(dirname "$relative")"
    cp -n "$1" "$2/usr$relative"
}
initrd=$dir/initrd
rm -rf "$initrd"
mkdir -p "$initrd"/{bin,dev,proc,sys,new,usr/lib}
cp "$root/usr/bin/busybox" "$initrd/bin/busybox"
order=
for module in virtio_pci virtio_blk virtio_net crc32c_generic ext4; do
    for file in $(needs $module); do
        copy_module "$file" "$initrd"
        relative=${file#"$dir/kernel"}
        case " $order " in *" $relative "*) ;; *) order="$order $relative" ;; esac
    done
done
for module in vivid virtio_rng rng_core; do
    for file in $(needs $module); do copy_module "$file" "$root"; done
done
cp "$dir/kernel/lib/modules/$kernel"/modules.{order,builtin,builtin.modinfo} "$root/usr/lib/modules/$kernel/"
depmod -b "$root" "$kernel"
{
    echo '#!/bin/busybox sh'
    echo '/bin/busybox mount -t devtmpfs dev /dev; /bin/busybox mount -t proc proc /proc; /bin/busybox mount -t sysfs sys /sys'
    for file in $order; do echo "/bin/busybox insmod /usr${file#/usr}"; done
    echo 'n=0; while [ ! -b /dev/vda ] && [ $n -lt 100 ]; do /bin/busybox sleep 0.1; n=$((n + 1)); done'
    echo '/bin/busybox mount -t ext4 -o rw /dev/vda /new && /bin/busybox umount /proc /sys && /bin/busybox mount --move /dev /new/dev'
    echo 'exec /bin/busybox switch_root /new /sbin/init'
} > "$initrd/init"
chmod 0755 "$initrd/init"
(cd "$initrd" && find . | cpio -o -H newc --quiet | gzip -1) > "$dir/initrd.img"
cp "$dir/kernel/boot/vmlinuz-$kernel" "$dir/vmlinuz"

# -- disk ---------------------------------------------------------------------------------------------------------------------------
rm -rf "$root/usr/share/doc" "$root/usr/share/man" "$root/usr/share/locale" "$root/usr/share/info"
mkdir -p "$root"/{dev,proc,sys,run,tmp,mnt}
chmod 1777 "$root/tmp"
rm -f "$dir/root.img"
mke2fs -q -t ext4 -L board -O ^metadata_csum_seed,^orphan_file -d "$root" "$dir/root.img" ${disk_mb}M 2> "$dir/mke2fs.log" \
    || mke2fs -q -t ext4 -L board -d "$root" "$dir/root.img" ${disk_mb}M || fail 73 "mke2fs failed"
rm -rf "$root" "$initrd" "$dir/kernel"
echo "$stamp" > "$dir/stamp"
echo "board image: $dir (kernel $kernel)"

#!/usr/bin/env bash
# The virtual line: a Debian arm64 board in QEMU with systemd, mosquitto and the kernel's virtual camera, brought into service by `make deploy`
# over ssh on a forwarded loopback port, and looked at from outside.
#
# usage: tests/board/test.sh            (make test-board)
#   PACKAGE=FILE   this .deb instead of building one     KEEP=1   leave the guest's disk
#   BOARD=amd64    a PC instead of an aarch64 board (quick where the machine has KVM); default arm64
#
# Steps: dry run, first installation, configuration, camera, template, start, messages at a subscriber here, hang, wrong settings, a version
# that does not start, one that refuses the board, an update, the fleet's playbook, reboot, backup, removal, purge. Every wait has a limit that
# only ends a test that hangs.
# Exit: 0 all passed, or QEMU is missing (a line says so); 1 a check failed, with the guest's journal in target/board/run.
set -euo pipefail

root=$(cd "$(dirname "$0")/../.." && pwd)
cd "$root"
board=${BOARD:-arm64}
case $board in
    arm64)
        machine=(qemu-system-aarch64 -M virt -cpu cortex-a72)
        console=ttyAMA0
        ;;
    amd64)
        machine=(qemu-system-x86_64 -M q35)
        console="ttyS0 no_timer_check"
        if [ -w /dev/kvm ] && [ "${KVM:-yes}" = yes ]; then machine+=(-enable-kvm -cpu host); else machine+=(-cpu Haswell-v4); fi
        ;;
    *) echo "test-board: BOARD must be arm64 or amd64, got '$board'" >&2; exit 64 ;;
esac
if ! command -v "${machine[0]}" > /dev/null; then
    echo "skipped: test-board: ${machine[0]} is missing (scripts/install-packages.sh board)"
    exit 0
fi
for tool in mosquitto_sub ssh scp python3; do
    command -v $tool > /dev/null || { echo "test-board: $tool is missing (scripts/install-packages.sh board)" >&2; exit 69; }
done
python3 -c "import jsonschema" || { echo "test-board: Python has no jsonschema (scripts/install-packages.sh board)" >&2; exit 69; }
image=target/board/$board
run=$root/target/board/run
began=$(date +%s)
step_began=$began

step() { local now; now=$(date +%s); echo "== [$((now - began)) s] $*"; step_began=$now; }
fail() { echo "test-board: FAILED after $(($(date +%s) - began)) s: $*" >&2; exit 1; }
check() { # TEXT COMMAND...
    local text=$1
    shift
    if "$@" > "$run/check.log" 2>&1; then echo "   ok  $text"; else cat "$run/check.log"; fail "$text"; fi
}
wait_for() { # SECONDS TEXT COMMAND...
    local until=$(($(date +%s) + $1)) text=$2
    shift 2
    while ! "$@" > "$run/check.log" 2>&1; do
        [ "$(date +%s)" -lt "$until" ] || { cat "$run/check.log"; fail "waited in vain: $text"; }
        kill -0 "$qemu" 2> /dev/null || fail "the guest ended: $(tail -n 3 "$run/console.log")"
        sleep 2
    done
    echo "   ok  $text ($(($(date +%s) - step_began)) s)"
}

# -- what is needed ---------------------------------------------------------------------------------------------------------------------
step "image and package"
mkdir -p target/board
package=${PACKAGE:-}
packing=
if [ -z "$package" ]; then
    # The program of `make cross`, in a package that an emulated board unpacks fast.
    WAY=quick SBOM=no COMPRESSION=gz PACKAGE_DIR=target/board scripts/package.sh deb "$board" > target/board/package.log 2>&1 &
    packing=$!
fi
tests/board/image.sh "$image" "$board"
if [ -n "$packing" ]; then
    wait $packing || { tail -n 40 target/board/package.log; fail "no package"; }
    package=$(tail -n 1 target/board/package.log)
    echo "$package"
fi

rm -rf "$run"
mkdir -p "$run"
cp --sparse=always "$image/root.img" "$run/disk.img"
read -r ssh_port mqtt_port < <(python3 -c '
import socket
s = [socket.socket() for _ in range(2)]
[x.bind(("127.0.0.1", 0)) for x in s]
print(*(x.getsockname()[1] for x in s))')
sed "s/@PORT@/$ssh_port/" "$image/known_hosts.in" > "$run/known_hosts"
install -m 0600 "$image/key" "$run/key"
cat > "$run/ssh.conf" <<END
Host board root
  HostName 127.0.0.1
  Port $ssh_port
  IdentityFile $run/key
  IdentitiesOnly yes
  UserKnownHostsFile $run/known_hosts
  ControlMaster auto
  ControlPath $run/ssh-%r
  ControlPersist 60
Host board
  User board
Host root
  User root
END
on() { ssh -F "$run/ssh.conf" -o BatchMode=yes -o ConnectTimeout=10 root "$@"; }
on_quietly() { on "$@" > /dev/null 2>&1; }
deploy() { scripts/deploy.sh --ssh-config "$run/ssh.conf" --timeout 400 "$@" board; }

qemu=
subscriber=
leave() {
    status=$?
    if [ $status != 0 ] && [ -n "$qemu" ] && kill -0 "$qemu" 2> /dev/null; then
        timeout 60 ssh -F "$run/ssh.conf" -o BatchMode=yes -o ConnectTimeout=10 root "journalctl -b --no-pager -o short-monotonic" > "$run/journal.log" 2>&1 || true
        echo "-- the guest's last lines (target/board/run/journal.log has all)" >&2
        tail -n 25 "$run/journal.log" >&2
    fi
    for name in root board; do ssh -F "$run/ssh.conf" -O exit $name > /dev/null 2>&1 || true; done
    for pid in $subscriber $qemu; do kill "$pid" 2> /dev/null || true; done
    wait 2> /dev/null || true
    [ -n "${KEEP:-}" ] || rm -f "$run/disk.img"
    exit $status
}
trap leave EXIT

# Kernel page tables apart from the program's (for address randomisation, on arm64) cost an emulated processor a third of everything.
kernel="nokaslr kpti=off mitigations=off init_on_alloc=0"
step "boot"
"${machine[@]}" -smp 2 -m 1024 -display none -monitor none -serial "file:$run/console.log" \
    -kernel "$image/vmlinuz" -initrd "$image/initrd.img" -append "console=$console root=/dev/vda rw quiet systemd.show_status=no $kernel" \
    -drive "file=$run/disk.img,format=raw,if=none,id=disk,cache=unsafe" -device virtio-blk-pci,drive=disk \
    -netdev "user,id=net,hostfwd=tcp:127.0.0.1:$ssh_port-:22,hostfwd=tcp:127.0.0.1:$mqtt_port-:1883" -device virtio-net-pci,netdev=net,romfile= \
    -device virtio-rng-pci < /dev/null > "$run/qemu.log" 2>&1 &
qemu=$!
up() { [ "$(on systemctl is-system-running)" = running ]; }
wait_for 300 "systemd is up, ssh answers" up
check "the kernel's virtual camera is there, for group video" on "stat -c '%U:%G %a' /dev/video0 | grep -x 'root:video 660'"

# -- deploy to an empty board -----------------------------------------------------------------------------------------------------------
step "dry run"
deploy --dry-run --package "$package" | sed 's/^/   /'
check "a dry run changes nothing" on '! dpkg-query -W ssds 2> /dev/null && [ ! -e /usr/bin/ssds ]'

step "first installation"
status=0
deploy --package "$package" > "$run/deploy1.log" 2>&1 || status=$?
sed 's/^/   /' "$run/deploy1.log"
[ $status = 3 ] || fail "the first deploy must end with 3 (waits for its configuration), got $status"
check "the unit is enabled and not running" on '[ "$(systemctl is-enabled ssds)" = enabled ] && [ "$(systemctl is-active ssds)" = inactive ]'
check "user and folders are there" on 'id ssds | grep -q "video" && [ "$(stat -c %U:%a /var/lib/ssds)" = ssds:750 ]'
check "manual pages and completions are there" on '[ -f /usr/share/man/man1/ssds-run.1.gz ] && [ -f /usr/share/bash-completion/completions/ssds ]'
on 'ssds doctor; [ $? = 1 ]' | sed 's/^/   /'

# -- configure as docs/deploy.md says ---------------------------------------------------------------------------------------------------
step "configuration, password as a credential"
on 'cat > /etc/ssds/ssds.toml' <<'END'
[station]
name = "board1"
simulated = true
[product]
name = "pattern"
[camera]
name = "top"
backend = "v4l2"
device = "/dev/video0"
format = "GREY"
width = 320
height = 180
frame_rate = 1
timeout_ms = 20000
max_age_ms = 600000
[align]
max_rotation_degrees = 10
min_scale = 0.95
max_scale = 1.05
[inference]
threads = 2
tile_px = 192
overlap_px = 16
[pipeline]
queue_frames = 1
stall_ms = 300000
[mqtt]
prefix = "plant/line1/board1"
username = "board1"
password_file = "/run/credentials/ssds.service/mqtt-password"
END
on 'umask 077; echo s3cret > /etc/ssds/credentials/mqtt-password; mosquitto_passwd -b -c /etc/mosquitto/passwd board1 s3cret; chown mosquitto /etc/mosquitto/passwd
    echo "password_file /etc/mosquitto/passwd" >> /etc/mosquitto/conf.d/board.conf; systemctl restart mosquitto'
settings=$(on sha256sum /etc/ssds/ssds.toml)
mkdir -p "$run/empty"
# Emulation is slow: the first start loads and verifies the network for minutes.
on 'mkdir -p /etc/systemd/system/ssds.service.d; printf "[Service]\nTimeoutStartSec=600\n" > /etc/systemd/system/ssds.service.d/slow.conf; systemctl daemon-reload'

step "camera and template"
on 'v4l2-ctl -d /dev/video0 -c osd_text_mode=0 -c test_pattern=0' || true
on 'sudo -u ssds ssds camera list' | sed 's/^/   /'
check "a frame can be taken as user ssds" on 'sudo -u ssds ssds camera grab -n 1 --out /tmp/good'
on 'sudo -u ssds ssds teach pattern /tmp/good/000000.png' | sed 's/^/   /' || fail "the template cannot be taught"

# -- into service -----------------------------------------------------------------------------------------------------------------------
step "deploy: check, start, READY, online"
mosquitto_sub -h 127.0.0.1 -p "$mqtt_port" -i host-subscriber -c -q 1 -k 20 -t '#' -v > "$run/messages.log" 2> "$run/subscriber.log" &
subscriber=$!
deploy --package "$package" 2>&1 | sed 's/^/   /'
check "the unit is active" on 'systemctl is-active ssds'
check "the broker says online" grep -q 'plant/line1/board1/ssds/status {.*"status":"online"' "$run/messages.log"
results() { [ "$(grep -c '^plant/line1/board1/ssds/result/' "$run/messages.log")" -ge "$1" ]; }
wait_for 400 "a result at a subscriber on the host" results 1
on 'ssds doctor' | sed 's/^/   /'

step "the network for weak boards"
on 'printf "[inference]\nmodel = \"/usr/lib/ssds/models/ssds-tiny.onnx\"\nthreads = 1\n" > /etc/ssds/conf.d/50-tiny.toml; systemctl restart ssds'
check "the unit is active" on 'systemctl is-active ssds'
wait_for 400 "three results at a subscriber on the host" results 3
check "the doctor names the network" on 'ssds doctor | grep "^ok *model *ssds-tiny "'

step "a hang: the watchdog ends and restarts it"
pid=$(on 'systemctl show ssds -p MainPID --value')
on "kill -STOP $pid"
restarted() { on "[ \"\$(systemctl show ssds -p NRestarts --value)\" -ge 1 ] && systemctl is-active ssds && [ \"\$(systemctl show ssds -p MainPID --value)\" != $pid ]"; }
wait_for 600 "restarted and ready" restarted
check "it was the watchdog" on 'journalctl -u ssds -b --no-pager | grep -q "Watchdog timeout"'

step "wrong settings: ended with 78, not restarted, told with priority err"
on 'echo "[align]
min_scael = 2" > /etc/ssds/conf.d/90-wrong.toml; systemctl restart ssds' > /dev/null 2>&1 || true
check "failed with 78 and stays so" on 'sleep 6; [ "$(systemctl show ssds -p ActiveState -p ExecMainStatus --value | tr "\n" " ")" = "failed 78 " ] || [ "$(systemctl show ssds -p ActiveState -p ExecMainStatus --value | tr "\n" " ")" = "78 failed " ]'
check "journalctl -p err names key and file" on 'journalctl -u ssds -b -p err --no-pager -o cat | grep -q "90-wrong.toml:2: unknown key align.min_scael; did you mean align.min_scale?"'
check "the doctor says what to do" on 'ssds doctor > /tmp/doctor; [ $? = 1 ] && grep -q "exit 78 (configuration)" /tmp/doctor && grep -q "90-wrong.toml" /tmp/doctor'
on 'rm /etc/ssds/conf.d/90-wrong.toml; systemctl restart ssds'
check "active again" on 'systemctl is-active ssds'

# -- updates ----------------------------------------------------------------------------------------------------------------------------
# A package of another version, its program replaced by a script: SCRIPT sees the real program as /usr/lib/ssds/real.
variant() { # VERSION SCRIPT OUT
    local tree=$run/tree
    rm -rf "$tree"
    dpkg-deb -R "$package" "$tree"
    sed -i "s/^Version: .*/Version: $1/" "$tree/DEBIAN/control"
    mv "$tree/usr/bin/ssds" "$tree/usr/lib/ssds/real"
    printf '#!/bin/sh\n%s\nexec /usr/lib/ssds/real "$@"\n' "$2" > "$tree/usr/bin/ssds"
    chmod 0755 "$tree/usr/bin/ssds"
    rm -f "$tree/DEBIAN/md5sums"
    dpkg-deb -Zgzip -z1 --root-owner-group -b "$tree" "$3" > /dev/null
    rm -rf "$tree"
}
version=$(dpkg-deb -f "$package" Version)
installed() { on "dpkg-query -W -f '\${Version}' ssds"; }

step "a version that refuses the board: the daemon is not even restarted"
variant "$version+refuses" 'if [ "$1" = check ]; then echo "FAULT model          not good"; exit 1; fi' "$run/refuses.deb"
pid=$(on 'systemctl show ssds -p MainPID --value')
status=0
deploy --package "$run/refuses.deb" > "$run/deploy2.log" 2>&1 || status=$?
sed 's/^/   /' "$run/deploy2.log"
[ $status = 1 ] || fail "a refused version must end the deploy with 1, got $status"
check "the version before is back, the daemon never stopped" [ "$(installed) $(on 'systemctl show ssds -p MainPID --value')" = "$version $pid" ]

step "a version that does not start: put back"
variant "$version+broken" 'if [ "$1" = run ]; then echo "<3>broken on purpose" >&2; exit 70; fi' "$run/broken.deb"
status=0
deploy --package "$run/broken.deb" > "$run/deploy3.log" 2>&1 || status=$?
sed 's/^/   /' "$run/deploy3.log"
[ $status = 1 ] || fail "a broken version must end the deploy with 1, got $status"
check "the version before is back and active" [ "$(installed) $(on 'systemctl is-active ssds')" = "$version active" ]

step "an update"
variant "$version+next" ':' "$run/next.deb"
deploy --package "$run/next.deb" > "$run/deploy4.log" 2>&1 || { cat "$run/deploy4.log"; fail "the update failed"; }
tail -n 12 "$run/deploy4.log" | sed 's/^/   /'
check "the new version runs" [ "$(installed) $(on 'systemctl is-active ssds')" = "$version+next active" ]
check "no deploy touched the settings" [ "$(on sha256sum /etc/ssds/ssds.toml)" = "$settings" ]

step "the fleet's playbook, as it stands in docs/deploy.md"
if command -v ansible-playbook > /dev/null; then
    sed -n '/^```yaml$/,/^```$/{/^```/!p}' docs/deploy.md > "$run/update.yml"
    on cat /etc/ssds/ssds.toml | sed 's/^name = "board1"$/name = "{{ station }}"/' > "$run/ssds.toml.j2"
    cp "$package" "$run/ssds_${version}_$board.deb"
    printf '[stations]\nboard station=board1 ansible_python_interpreter=/usr/bin/python3\n' > "$run/stations"
    ANSIBLE_SSH_ARGS="-F $run/ssh.conf -o BatchMode=yes" ANSIBLE_NOCOWS=1 ANSIBLE_PIPELINING=1 ANSIBLE_LOCAL_TEMP="$run/ansible" \
        ansible-playbook -i "$run/stations" -e "version=$version arch=$board" "$run/update.yml" > "$run/playbook.log" 2>&1 \
        || { cat "$run/playbook.log"; fail "the playbook failed"; }
    grep -E '^(TASK|ok|changed|board )' "$run/playbook.log" | sed 's/^/   /'
    check "it put the other version in, which is active" [ "$(installed) $(on 'systemctl is-active ssds')" = "$version active" ]
    check "its settings are the ones that were there" [ "$(on sha256sum /etc/ssds/ssds.toml)" = "$settings" ]
else
    echo "   skipped: ansible-playbook is missing (scripts/install-packages.sh board)"
fi

# -- reboot -----------------------------------------------------------------------------------------------------------------------------
step "reboot"
boot=$(on cat /proc/sys/kernel/random/boot_id)
last=$(on 'ssds audit --db /var/lib/ssds/ssds.db --json' | sed 's/.*"last":\([0-9]*\).*/\1/')
on 'systemctl reboot' > /dev/null 2>&1 || true
ssh -F "$run/ssh.conf" -O exit root > /dev/null 2>&1 || true
rebooted() { local now; now=$(on cat /proc/sys/kernel/random/boot_id) && [ "$now" != "$boot" ]; }
wait_for 300 "up again" rebooted
active() { on 'systemctl is-active ssds'; }
wait_for 600 "the unit is active by itself" active
second_boot() { [ "$(sed -n 's#^plant/line1/board1/ssds/result/[a-z]* {.*"boot_id":"\([0-9a-f]*\)".*#\1#p' "$run/messages.log" | sort -u | wc -l)" -ge 2 ]; }
wait_for 400 "results of the second boot" second_boot
results "$((last + 1))" || fail "results after number $last were wanted"

step "everything that came, from the outside"
scripts/check-messages.py --from 1 < "$run/messages.log" > "$run/verdict.log" || { cat "$run/verdict.log"; fail "messages"; }
sed 's/^/   /' "$run/verdict.log"
grep -q 'over 2 boots' "$run/verdict.log" || fail "results of two boots were wanted"
on 'ssds audit --db /var/lib/ssds/ssds.db' | sed 's/^/   /'
on 'journalctl -u ssds --no-pager -o cat -p 4 | sort | uniq -c | sort -rn | head -n 8' | sed 's/^/   journal, warning and above: /'

# -- backup -----------------------------------------------------------------------------------------------------------------------------
step "backup and restore of settings and templates, as docs/deploy.md says"
on 'tar -C / -czf /tmp/board1.tgz etc/ssds var/lib/ssds/templates && systemctl stop ssds && rm -r /etc/ssds /var/lib/ssds/templates &&
    tar -C / -xzf /tmp/board1.tgz && chown -R ssds:ssds /var/lib/ssds'
check "the settings are as they were" [ "$(on sha256sum /etc/ssds/ssds.toml)" = "$settings" ]
check "the templates are whole, and the daemon takes them" on 'sudo -u ssds ssds template verify && sudo -u ssds ssds check && systemctl start ssds'

# -- away with it -----------------------------------------------------------------------------------------------------------------------
step "removal keeps settings and results, purge keeps results"
on 'dpkg --remove ssds' | sed 's/^/   /'
check "the program and its unit are gone, settings and results are there" \
    on '[ ! -e /usr/bin/ssds ] && [ ! -e /usr/lib/ssds ] && ! systemctl is-active ssds && [ -f /etc/ssds/ssds.toml ] && [ -f /var/lib/ssds/ssds.db ]'
on 'dpkg --purge ssds' | sed 's/^/   /'
check "purged: settings and cache are gone, results, templates and evidence are there" \
    on '[ ! -e /etc/ssds/ssds.toml ] && [ ! -e /var/cache/ssds ] && [ -f /var/lib/ssds/ssds.db ] && [ -d /var/lib/ssds/templates ] && id ssds && ! dpkg-query -W ssds'
scp -q -F "$run/ssh.conf" -o BatchMode=yes "$package" root:/tmp/ssds.deb
on 'dpkg -i /tmp/ssds.deb && SSDS_PURGE=all dpkg --purge ssds' > "$run/purge.log" 2>&1 || { cat "$run/purge.log"; fail "purge with SSDS_PURGE=all"; }
check "purged with SSDS_PURGE=all: nothing is left" on '[ ! -e /var/lib/ssds ] && [ ! -e /etc/ssds ] && ! id ssds'

on 'systemctl poweroff' > /dev/null 2>&1 || true
step "test-board passed"

#!/bin/sh
# Prints the newest glibc version that programs ask for, and checks it: `glibc-need.sh [--max 2.31] FILE...`. JetPack 5, 6 and 7 have
# 2.31, 2.35 and 2.39; Debian 12 has 2.36. Works for any machine's programs. Exit: 0 good, 1 more is asked for than --max allows, 64 usage, 66 no file.
set -eu

max=
[ "${1:-}" = --max ] && { max=${2:?"--max needs a version"}; shift 2; }
[ $# -gt 0 ] || { echo "usage: glibc-need.sh [--max VERSION] FILE..." >&2; exit 64; }
command -v readelf >/dev/null 2>&1 || { echo "glibc-need: readelf is missing (package binutils)" >&2; exit 69; }
status=0
for file in "$@"; do
    [ -f "$file" ] || { echo "glibc-need: no file $file" >&2; exit 66; }
    need=$(LC_ALL=C readelf -W --version-info "$file" | sed -n 's/.*Name: GLIBC_\([0-9.]*\).*/\1/p' | sort -uV | tail -n 1)
    machine=$(LC_ALL=C readelf -h "$file" | sed -n 's/ *Machine: *//p')
    echo "$file: $machine, needs glibc ${need:-none}"
    if [ -n "$max" ] && [ -n "$need" ] && [ "$(printf '%s\n%s\n' "$need" "$max" | sort -V | tail -n 1)" != "$max" ]; then
        echo "glibc-need: $file asks for glibc $need, at most $max is allowed" >&2
        status=1
    fi
done
exit $status

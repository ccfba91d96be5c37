#!/bin/sh
# Prints the Rust compiler that can build for a machine: `rustc-for.sh aarch64|x86_64`. Tries the default one (RUSTC, else rustc), then Debian's;
# where neither has the target, adds it by rustup, or installs Debian's rustc-web with the machine's libstd-rust-web-dev (as root).
# Exit: 0 found, 64 usage, 69 none, or one older than Cargo.toml's rust-version.
set -eu

fail() { code=$1; shift; echo "rustc-for: $*" >&2; exit "$code"; }
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
case "${1:-}" in
    aarch64) debian=arm64 ;;
    x86_64) debian=amd64 ;;
    *) fail 64 "usage: rustc-for.sh aarch64|x86_64, got '${1:-}'" ;;
esac
target=$1-unknown-linux-gnu

find_compiler() {
    for compiler in "${RUSTC:-rustc}" /usr/bin/rustc; do
        compiler=$(command -v "$compiler") || continue
        folder=$("$compiler" --print target-libdir --target "$target" 2>/dev/null) || continue
        if ls "$folder"/libstd-*.rlib >/dev/null 2>&1; then return 0; fi
    done
    return 1
}
rustup_adds() { command -v rustup >/dev/null 2>&1 && rustup target add "$target" >/dev/null 2>&1; }

find_compiler || { rustup_adds && find_compiler; } || { "$here/install-packages.sh" "rust-$debian" >&2 && find_compiler; } \
    || fail 69 "no Rust compiler has $target: run  rustup target add $target  or, on Debian, what install-packages.sh says above"
wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$here/../Cargo.toml")
version=$("$compiler" --version | cut -d' ' -f2)
[ "$(printf '%s\n%s\n' "$wanted" "$version" | sort -V | head -n 1)" = "$wanted" ] \
    || fail 69 "$compiler is $version, wanted $wanted or newer: rustup target add $target"
echo "$compiler"

#!/bin/sh
# Runs the core's registration tests as an aarch64 program under qemu-user: the NEON build of every hot loop and the plain one beside it.
# Needs a Rust compiler with the aarch64 target (rustc-for.sh), a cross linker and qemu-aarch64; says what is missing.
# usage: test-aarch64.sh [TEST FILTER]   (default align::; CARGO names another cargo)
set -eu
cd "$(dirname "$0")/.."

target=aarch64-unknown-linux-gnu
missing=""
command -v aarch64-linux-gnu-gcc >/dev/null 2>&1 || missing="$missing gcc-aarch64-linux-gnu libc6-dev-arm64-cross"
command -v qemu-aarch64 >/dev/null 2>&1 || missing="$missing qemu-user"
if [ -n "$missing" ]; then
    echo "test-aarch64: missing:$missing (make test-aarch64 installs them as root)" >&2
    exit 69
fi
compiler=$(scripts/rustc-for.sh aarch64)

# Its own folder: the compiler may be another than the host's.
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target}/aarch64-test"
export RUSTC="$compiler"
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
export CC_aarch64_unknown_linux_gnu=aarch64-linux-gnu-gcc
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="qemu-aarch64 -L /usr/aarch64-linux-gnu"
# Emulation is slow: optimised code, and a few cases of each property.
export CARGO_PROFILE_DEV_OPT_LEVEL=2
export PROPTEST_CASES="${PROPTEST_CASES:-4}"
echo "test-aarch64: $compiler, $(qemu-aarch64 --version | head -n 1)"
exec "${CARGO:-cargo}" test --locked --target $target --no-default-features --lib -- "${1:-align::}"

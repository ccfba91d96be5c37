#!/usr/bin/env bash
# Builds the daemon for a board.
#
# usage: scripts/cross.sh [--arch aarch64|x86_64] [--way quick|release] [--features LIST]
#   --way quick    Debian's cross gcc links against its own glibc; for a board with a system as new as that. Dependencies are optimised less
#                  (cross/quick.toml): for trials and tests
#   --way release  cargo-zigbuild and zig link against glibc 2.31 (JetPack 5 and newer, Debian 11, Ubuntu 20.04); both come from PyPI by
#                  pinned checksum into target/tools
#
# The Rust compiler is found by itself (rustc-for.sh). Prints the program's path last, after checking its glibc need (MAX_GLIBC; default 2.31
# for the release way, 2.36 for the quick one). Builds in target/cross, as the compiler may be another than cargo's own.
# Exit: 0 built, 64 usage, 69 a tool is missing and cannot be installed from here, else cargo's.
set -euo pipefail

fail() { code=$1; shift; echo "cross: $*" >&2; exit "$code"; }
root=$(cd "$(dirname "$0")/.." && pwd)
arch=aarch64
way=quick
features=
while [ $# -gt 0 ]; do
    case $1 in
        --arch) arch=${2:?}; shift 2 ;;
        --way) way=${2:?}; shift 2 ;;
        --features) features=${2?}; shift 2 ;;
        -h | --help) sed -n '2,12s/^# \{0,1\}//p' "$0"; exit 0 ;;
        *) fail 64 "unknown argument '$1'" ;;
    esac
done
case $arch in
    arm64 | aarch64) arch=aarch64 ;;
    amd64 | x86_64) arch=x86_64 ;;
    *) fail 64 "--arch must be aarch64 or x86_64, got '$arch'" ;;
esac
case $way in quick | release) ;; *) fail 64 "--way must be quick or release, got '$way'" ;; esac
target=$arch-unknown-linux-gnu
host=$(uname -m)
[ "$host" = arm64 ] && host=aarch64
cargo=${CARGO:-cargo}
command -v "$cargo" > /dev/null || fail 69 "cargo is missing (https://rustup.rs)"

compiler=$("$root/scripts/rustc-for.sh" $arch)
version=$("$compiler" --version | cut -d' ' -f2)
echo "cross: $target by $compiler $version, $way way"
export RUSTC=$compiler
# Symbols would be a third of the package; panics name file and line all the same.
export CARGO_PROFILE_RELEASE_STRIP=symbols
folder=${CARGO_TARGET_DIR:-$root/target}/cross
arguments=(--release --locked --bin ssds --manifest-path "$root/Cargo.toml" --target-dir "$folder")
[ -z "$features" ] || arguments+=(--features "$features")
upper=$(echo $target | tr 'a-z-' 'A-Z_')
under=$(echo $target | tr - _)

# -- C libraries of optional features -------------------------------------------------------------------------------------------------
if [ "$arch" != "$host" ]; then
    export PKG_CONFIG_ALLOW_CROSS=1
    export PKG_CONFIG_LIBDIR=${PKG_CONFIG_LIBDIR:-/usr/lib/$arch-linux-gnu/pkgconfig:/usr/share/pkgconfig}
fi

if [ "$way" = release ]; then
    tools=$root/target/tools/zig
    if ! [ -x "$tools/bin/cargo-zigbuild" ] || ! [ -x "$tools/ziglang/zig" ]; then
        [ "$host" = x86_64 ] || fail 69 "cargo-zigbuild and zig are pinned for x86-64 machines only; use --way quick here"
        python=${PYTHON:-python3}
        "$python" -m pip --version > /dev/null 2>&1 || fail 69 "$python has no pip (Debian: apt-get install python3-pip)"
        echo "cross: fetching cargo-zigbuild and zig from PyPI"
        pins=$(mktemp)
        trap 'rm -f "$pins"' EXIT
        cat > "$pins" <<'PINS'
cargo-zigbuild==0.24.1 --hash=sha256:238a1ab54a95053a4eadc34775c81f795a8ad75f80bfed63f3f445f518102375
ziglang==0.15.2 --hash=sha256:806316453d1ede7174ed3fefb8e5348154629089c3bb5fe812dfd0e172fac130
PINS
        "$python" -m pip install --quiet --no-deps --only-binary=:all: --require-hashes --upgrade --target "$tools" -r "$pins" \
            || fail 69 "pip could not bring cargo-zigbuild and ziglang"
    fi
    export CARGO_ZIGBUILD_ZIG_PATH=$tools/ziglang/zig
    export PATH=$tools/bin:$PATH
    # The kernel's and glibc's headers for the camera's bindings, as zig has them; libclang looks for none of another machine by itself.
    headers=$tools/ziglang/lib/libc/include
    bindings=-nostdlibinc
    short=${arch/x86_64/x86}
    for part in "$short-linux-gnu" generic-glibc "$short-linux-any" any-linux-any; do
        if [ -d "$headers/$part" ]; then bindings+=" -isystem $headers/$part"; fi
    done
    # With the target's own hyphens: cargo-zigbuild overwrites the form with underscores, and bindgen looks for this one first.
    zig_environment=("BINDGEN_EXTRA_CLANG_ARGS_$target=$bindings")
    env "${zig_environment[@]}" "$cargo" zigbuild "${arguments[@]}" --target "$target.2.31" || exit $?
    max=${MAX_GLIBC:-2.31}
else
    if [ "$arch" != "$host" ]; then
        gcc=$arch-linux-gnu-gcc
        command -v "$gcc" > /dev/null || fail 69 "$gcc is missing (scripts/install-packages.sh cross)"
        export "CARGO_TARGET_${upper}_LINKER=$gcc" "CC_$under=$gcc" "CXX_$under=$arch-linux-gnu-g++" "AR_$under=$arch-linux-gnu-ar"
        export "BINDGEN_EXTRA_CLANG_ARGS_$under=--sysroot=/usr/$arch-linux-gnu -I/usr/$arch-linux-gnu/include"
    fi
    "$cargo" build "${arguments[@]}" --config "$root/cross/quick.toml" --target "$target" || exit $?
    max=${MAX_GLIBC:-2.36}
fi
"$root/scripts/glibc-need.sh" --max "$max" "$folder/$target/release/ssds"

#!/bin/sh
# Takes libonnxruntime out of the PyPI wheel `onnxruntime` with pinned SHA-256 sums (wheel and library) into a folder that git ignores.
#
# usage: scripts/fetch-onnxruntime.sh [--arch x86_64|aarch64] [DIR]
#   --arch  machine to fetch for; default: this one
#   DIR     folder to fill; default: runtime/ of this checkout (runtime/aarch64/ when fetching for another machine)
#
# Writes libonnxruntime.so.VERSION, a link libonnxruntime.so, and ONNX Runtime's licence and third-party notices. Does nothing when
# the library is there with the right sum. Exit: 0 done, 64 usage, 69 no pip or no network, 65 a sum is wrong, 73 cannot write.
set -eu

version=1.31.1
fail() { code=$1; shift; echo "fetch-onnxruntime: $*" >&2; exit "$code"; }

root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
here=$(uname -m)
arch=$here
dest=
while [ $# -gt 0 ]; do
    case $1 in
        --arch) [ $# -ge 2 ] || fail 64 "--arch needs a value"; arch=$2; shift 2 ;;
        -h | --help) sed -n '2,9s/^# \{0,1\}//p' "$0"; exit 0 ;;
        -*) fail 64 "unknown option '$1'; wanted --arch" ;;
        *) [ -z "$dest" ] || fail 64 "one folder is wanted, got '$dest' and '$1'"; dest=$1; shift ;;
    esac
done
case $arch in arm64) arch=aarch64 ;; amd64) arch=x86_64 ;; esac
case $here in arm64) here=aarch64 ;; amd64) here=x86_64 ;; esac
case $arch in
    x86_64)
        wheel_sum=1f3dea47f2f0e5117c2404cea7d21fd253ae7836a3bf167a501cdfbb2600d536
        library_sum=fc44112fbe06d7d689c57e11d3862031f64711007e4ee020f8eed5185fd2c1d3 ;;
    aarch64)
        wheel_sum=0b9a492176886992e0e875f06bc0367e333f5fff11711a2d642e18b02f3009cc
        library_sum=8aa3b76b28c778a2b1dd660d34161adb1d508c9ccd04ff9dc80e26eca5df8467 ;;
    *) fail 64 "no pinned library for '$arch'; wanted x86_64 or aarch64 (any libonnxruntime >= 1.20 works by inference.library)" ;;
esac
if [ -z "$dest" ]; then
    dest=$root/runtime
    [ "$arch" = "$here" ] || dest=$dest/$arch
fi

# The wheel of one Python version is pinned; the library inside is the same for all.
wheel=onnxruntime-$version-cp312-cp312-manylinux_2_28_$arch.whl
library=libonnxruntime.so.$version
target=$dest/$library

sum_of() { sha256sum "$1" | cut -d' ' -f1; }
if [ -f "$target" ] && [ "$(sum_of "$target")" = "$library_sum" ]; then
    ln -sfn "$library" "$dest/libonnxruntime.so"
    echo "fetch-onnxruntime: $target is there (sha256 ok)"
    exit 0
fi

python=${PYTHON:-python3}
command -v "$python" >/dev/null 2>&1 \
    || fail 69 "$python is missing; install python3 and python3-pip (Debian: apt-get install python3-pip), or put $library into $dest by hand"
"$python" -m pip --version >/dev/null 2>&1 \
    || fail 69 "$python has no pip; install it (Debian: apt-get install python3-pip), or put $library into $dest by hand"

mkdir -p "$dest" || fail 73 "cannot create $dest"
work=$(mktemp -d "$dest/.fetch.XXXXXX") || fail 73 "cannot write to $dest"
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

echo "fetch-onnxruntime: downloading $wheel"
"$python" -m pip download --quiet --no-deps --only-binary=:all: --platform "manylinux_2_28_$arch" --implementation cp --abi cp312 \
    --python-version 3.12 --dest "$work" "onnxruntime==$version" || fail 69 "pip could not download onnxruntime==$version for $arch"
[ -f "$work/$wheel" ] || fail 69 "pip brought no $wheel: $(ls "$work")"
found=$(sum_of "$work/$wheel")
[ "$found" = "$wheel_sum" ] || fail 65 "$wheel has sha256 $found, wanted $wheel_sum"

"$python" - "$work/$wheel" "$work" "$library" <<'PY' || fail 65 "$wheel cannot be unpacked"
import sys, zipfile
wheel, work, library = sys.argv[1:]
with zipfile.ZipFile(wheel) as archive:
    for member, name in (("capi/" + library, library), ("LICENSE", "LICENSE.onnxruntime"), ("ThirdPartyNotices.txt", "ThirdPartyNotices.onnxruntime.txt")):
        with archive.open("onnxruntime/" + member) as source, open(f"{work}/{name}", "wb") as out:
            while block := source.read(1 << 20):
                out.write(block)
PY
found=$(sum_of "$work/$library")
[ "$found" = "$library_sum" ] || fail 65 "$library of $wheel has sha256 $found, wanted $library_sum"

chmod 0644 "$work/$library"
mv "$work/LICENSE.onnxruntime" "$work/ThirdPartyNotices.onnxruntime.txt" "$dest/"
mv "$work/$library" "$target"
ln -sfn "$library" "$dest/libonnxruntime.so"
echo "fetch-onnxruntime: $target (sha256 ok)"

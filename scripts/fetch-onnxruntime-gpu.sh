#!/bin/sh
# Takes ONNX Runtime's GPU build and the CUDA and cuDNN libraries that it needs out of their PyPI wheels, with pinned versions and SHA-256
# sums (scripts/onnxruntime-gpu.txt), into one folder that git ignores. For a PC (x86-64) with an NVIDIA card and a driver for CUDA 13 (580 or
# newer); a Jetson needs NVIDIA's own build, and TensorRT, which PyPI does not have, comes from NVIDIA (docs/deploy.md). About 2 GB are
# loaded and 2.5 GB kept. NVIDIA's licences apply to its libraries; they are put beside them.
#
# usage: scripts/fetch-onnxruntime-gpu.sh [DIR]
#   DIR  folder to fill; default: runtime/gpu of this checkout. `inference.library` or ORT_DYLIB_PATH names it.
#
# Does nothing when the folder was filled from the same list. Exit: 0 done, 64 usage, 69 no pip or no network or a sum is wrong, 65 a wheel
# cannot be unpacked, 73 cannot write.
set -eu

fail() { code=$1; shift; echo "fetch-onnxruntime-gpu: $*" >&2; exit "$code"; }

root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
list=$root/scripts/onnxruntime-gpu.txt
dest=
while [ $# -gt 0 ]; do
    case $1 in
        -h | --help) sed -n '2,12s/^# \{0,1\}//p' "$0"; exit 0 ;;
        -*) fail 64 "unknown option '$1'; wanted a folder" ;;
        *) [ -z "$dest" ] || fail 64 "one folder is wanted, got '$dest' and '$1'"; dest=$1; shift ;;
    esac
done
dest=${dest:-$root/runtime/gpu}
[ "$(uname -m)" = x86_64 ] || fail 64 "this machine is $(uname -m); the list is for x86_64 (a Jetson: docs/deploy.md)"

# The list itself is kept as the mark of a whole folder.
if cmp -s "$list" "$dest/wheels.txt"; then
    echo "fetch-onnxruntime-gpu: $dest is filled"
    exit 0
fi

python=${PYTHON:-python3}
command -v "$python" >/dev/null 2>&1 || fail 69 "$python is missing; install python3 and python3-pip (Debian: apt-get install python3-pip)"
"$python" -m pip --version >/dev/null 2>&1 || fail 69 "$python has no pip; install it (Debian: apt-get install python3-pip)"

mkdir -p "$dest" || fail 73 "cannot create $dest"
rm -f "$dest/wheels.txt"
work=$(mktemp -d "$dest/.fetch.XXXXXX") || fail 73 "cannot write to $dest"
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

echo "fetch-onnxruntime-gpu: downloading the wheels of $list"
# One wheel at a time, so that not all of them are on the disk beside their content.
grep -v '^#' "$list" | while read -r wheel; do
    echo "$wheel" >"$work/one.txt"
    "$python" -m pip download --quiet --no-deps --no-cache-dir --require-hashes --only-binary=:all: --implementation cp --abi cp312 --abi none \
        --python-version 3.12 --platform manylinux_2_28_x86_64 --platform manylinux_2_27_x86_64 --platform manylinux2014_x86_64 \
        --platform manylinux2010_x86_64 --platform manylinux1_x86_64 --dest "$work" --requirement "$work/one.txt" \
        || fail 69 "pip could not download ${wheel%% *} with the pinned sum"
    "$python" - "$work" <<'PY' || fail 65 "the wheel of ${wheel%% *} cannot be unpacked"
import pathlib, re, sys, zipfile
work = pathlib.Path(sys.argv[1])
(wheel,) = work.glob("*.whl")
library = re.compile(r"(onnxruntime/capi|nvidia/[^/]+/lib)/lib[^/]+\.so(\.[0-9.]+)?")
licence = re.compile(r"(onnxruntime|[^/]+\.dist-info/(licenses/)?)/?(LICENSE|License|ThirdPartyNotices)(\.txt)?")
out_folder = work / "out"
out_folder.mkdir(exist_ok=True)
found = 0
with zipfile.ZipFile(wheel) as archive:
    for member in archive.namelist():
        name = pathlib.PurePosixPath(member).name
        if library.fullmatch(member):
            found += 1
        elif licence.fullmatch(member):
            name = f"{name}.{wheel.name.split('-')[0]}"
        else:
            continue
        with archive.open(member) as source, open(out_folder / name, "wb") as out:
            while block := source.read(1 << 20):
                out.write(block)
wheel.unlink()
sys.exit(f"{wheel.name}: no library in it" if not found else 0)
PY
    mv -f "$work"/out/* "$dest/" || fail 73 "cannot write to $dest"
done
library=$(cd "$dest" && ls libonnxruntime.so.* | sort -V | tail -n 1)
ln -sfn "$library" "$dest/libonnxruntime.so"
cp "$list" "$dest/wheels.txt"
echo "fetch-onnxruntime-gpu: $dest/$library and NVIDIA's libraries (name the folder in inference.library)"

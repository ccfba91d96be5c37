#!/bin/sh
# Puts the pinned PyPI packages onnx and onnxruntime into a folder that git ignores, with a program `python` that sees them: what the
# trainer's tests (SSDS_PYTHON) check exported models with. Nothing is installed outside that folder.
#
# usage: scripts/fetch-checker.sh [DIR]      default: runtime/checker
#
# Does nothing when the folder holds these versions. Exit: 0 done, 69 no pip or no network, 73 cannot write. PYTHON names the interpreter.
set -eu

packages="onnx==1.23.2 onnxruntime==1.31.1"
fail() { code=$1; shift; echo "fetch-checker: $*" >&2; exit "$code"; }

root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
dest=${1:-$root/runtime/checker}
python=$(command -v "${PYTHON:-python3}") || fail 69 "${PYTHON:-python3} is missing; install python3 and python3-pip"
stamp="$packages for $("$python" -V 2>&1)"
if [ -x "$dest/python" ] && [ "$(cat "$dest/versions" 2>/dev/null)" = "$stamp" ]; then
    exit 0
fi
"$python" -m pip --version >/dev/null 2>&1 || fail 69 "$python has no pip; install it (Debian: apt-get install python3-pip)"
rm -rf "$dest"
mkdir -p "$dest" || fail 73 "cannot create $dest"
dest=$(CDPATH='' cd -- "$dest" && pwd)
echo "fetch-checker: $packages"
# shellcheck disable=SC2086
"$python" -m pip install --quiet --disable-pip-version-check --only-binary=:all: --target "$dest/packages" $packages \
    || fail 69 "pip could not install $packages"
printf '#!/bin/sh\nPYTHONPATH="%s/packages" exec "%s" "$@"\n' "$dest" "$python" > "$dest/python"
chmod +x "$dest/python"
"$dest/python" -c 'import onnx, onnxruntime' || fail 69 "the packages do not load"
echo "$stamp" > "$dest/versions"

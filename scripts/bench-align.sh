#!/bin/sh
# Registration beside its OpenCV peers: prints the tables with ratios and writes them to docs/bench/align.md.
# Needs ../shared (pair generator and DeepPCB) and Python 3 with venv; OpenCV and numpy go into an environment below the target folder.
# QUICK=1: a fifth of the pairs.  SEED=N: other pairs (tuned on 1 to 3).
set -eu
cd "$(dirname "$0")/.."

if [ ! -f ../shared/bench/make_align_bench.py ] || [ ! -d ../shared/data/deeppcb/PCBData ]; then
    echo "bench-align: ../shared is not here (wanted: ../shared/bench/make_align_bench.py and ../shared/data/deeppcb/PCBData)" >&2
    exit 69
fi
target="${CARGO_TARGET_DIR:-target}"
work="$target/bench-align"
mkdir -p "$work"
python="$work/venv/bin/python"
[ -x "$python" ] || python3 -m venv "$work/venv"
"$python" -c "import cv2, numpy, scipy, PIL, skimage" 2>/dev/null ||
    "$python" -m pip install --quiet opencv-python-headless==4.14.0.94 numpy scipy Pillow scikit-image
"${CARGO:-cargo}" build --release --locked --bin ssds
if [ -n "${QUICK:-}" ]; then
    set -- --quick
else
    set --
fi
exec "$python" benches/align_peers.py --ssds "$target/release/ssds" --bench ../shared/bench --deeppcb ../shared/data/deeppcb/PCBData \
    --work "$work" --seed "${SEED:-11}" --json "$work/results.json" --page docs/bench/align.md "$@"

#!/usr/bin/env bash
# The inference benches: `bench-infer.sh LIBRARY VERSION [infer_peers.py's options]`. Python's side gets an environment of its own below the
# target folder, with the same version of ONNX Runtime as the library.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
library=$1 version=$2
shift 2
target=${CARGO_TARGET_DIR:-$root/target}
venv=$target/bench-venv
if ! "$venv/bin/python" -c "import onnxruntime, onnx; assert onnxruntime.__version__ == '$version'" 2>/dev/null; then
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet "onnxruntime==$version" onnx numpy
fi
cd "$root"
"$venv/bin/python" benches/infer_peers.py --ssds "$target/release/ssds" --library "$library" "$@"
echo
"$venv/bin/python" benches/infer_sessions.py
echo
"$venv/bin/python" benches/network_cost.py models/ssds.onnx 256 640 1024

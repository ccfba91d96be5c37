#!/usr/bin/env bash
# Runs the daemon on the recorded frames that ship with the project: `demo.sh DIR [SECONDS]` (0 = until Ctrl-C).
# Everything it writes goes into DIR: results (ssds.db), the taught template, evidence (archive/).
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
dir=$1
seconds=${2:-0}
ssds=${SSDS:-${CARGO_TARGET_DIR:-$root/target}/release/ssds}
data=$root/tests/data/demo

mkdir -p "$dir"
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
http=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
library=$(ls "$root"/runtime/libonnxruntime.so.* | head -n 1)
sed -e "s#@ROOT@#$root#g; s#@DIR@#$dir#g; s#@MQTT_PORT@#$port#g; s#@HTTP_PORT@#$http#g; s#@LIBRARY@#$library#g" \
    "$root/config/demo.toml" > "$dir/demo.toml"

echo "== teaching product demo-board from one picture: $data/template.png"
"$ssds" teach demo-board "$data/template.png" --config "$dir/demo.toml"
echo
echo "== inspecting $(ls "$data"/frames | wc -l) recorded frames$( ((seconds > 0)) && echo " for $seconds s" || echo "; Ctrl-C stops")"
echo "   MQTT broker on 127.0.0.1:$port (try: mosquitto_sub -p $port -t '#' -v); pictures in $dir/archive"
echo "   The station's page: http://127.0.0.1:$http/"
status=0
"$ssds" run --config "$dir/demo.toml" --seconds "$seconds" || status=$?
echo
pictures=$(find "$dir/archive" -name overlay.png 2>/dev/null | wc -l)
echo "== evidence of what was NG or ERROR in $dir/archive ($pictures overlay.png to look at; list it: ssds archive list --config $dir/demo.toml)"
echo "   results in $dir/state/ssds.db"
exit "$status"

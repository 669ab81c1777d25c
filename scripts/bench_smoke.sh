#!/usr/bin/env bash
# Runs every benchmark at its tiny size: it must end well and print JSON.    scripts/bench_smoke.sh PYTHON
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

python=${1:-python3}
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
num_run=0
for bench in benchmarks/bench_*.py; do
  [[ -f $bench ]] || continue
  timeout 120 "$python" -W ignore -m "benchmarks.$(basename "$bench" .py)" --tiny >"$out/result.json" 2>"$out/log" || {
    cat "$out/log" "$out/result.json" >&2
    echo "bench-smoke: $bench --tiny failed" >&2
    exit 1
  }
  "$python" -m json.tool "$out/result.json" >/dev/null || { echo "bench-smoke: $bench --tiny printed no JSON" >&2; exit 1; }
  num_run=$((num_run + 1))
done
echo "bench-smoke: $num_run benchmarks ran"

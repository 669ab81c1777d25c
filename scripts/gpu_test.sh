#!/usr/bin/env bash
# The tests that need NVIDIA GPUs, and with --bench DIR their benchmarks, too: results as JSON, tables and the plot there.
#
#   scripts/gpu_test.sh [--bench DIR] [--trace FILE] [PYTHON]
#
# PYTHON (default: python3) must have torch with CUDA, transformers, nanobind, pytest, pytest-timeout, hypothesis, and
# what flexkv itself needs; flexkv is not installed, but built for it into the working tree. Tests of ranks get all GPUs,
# the others one each beside each other. Benchmarks run alone, on the first one, a quarter of an hour.
set -euo pipefail

usage() { sed -n '4s/^# *//p' "${BASH_SOURCE[0]}" >&2; exit 2; }
results="" trace="" python=python3
while (($#)); do
  case $1 in
    --bench) results=$(realpath -m -- "${2:?needs a directory}"); shift 2 ;;
    --trace) trace=$(realpath -m -- "${2:?needs a file}"); shift 2 ;;
    -*) usage ;;
    *) python=$1; shift ;;
  esac
done
[[ -z $trace || -f $trace ]] || { echo "gpu_test: --trace $trace is no file" >&2; exit 2; }
found=$(command -v "$python") || { echo "gpu_test: no such Python: $python" >&2; exit 2; }
python=$(realpath -s -- "$found")
num_gpus=$({ nvidia-smi --list-gpus 2>/dev/null || true; } | wc -l)
((num_gpus > 0)) || { echo "gpu_test: nvidia-smi names no GPU here" >&2; exit 1; }
cd "$(dirname "${BASH_SOURCE[0]}")/.."

FLEXKV_BUILD_DIR=build/gpu scripts/dev_build.sh "$python"
export PYTHONUNBUFFERED=1
logs=build/gpu-test
rm -rf "$logs" && mkdir -p "$logs"

# NAME FILE...
run_tests() {
  local name=$1 started=$SECONDS status=0
  shift
  "$python" -m pytest -q -p no:cacheprovider -m gpu --timeout=120 -rs "$@" >"$logs/$name.log" 2>&1 || status=$?
  cat "$logs/$name.log"
  echo "gpu_test: $name: $((SECONDS - started)) s, status $status"
  return "$status"
}

copies=(tests/gpu/test_gpu_copies.py tests/gpu/test_gpu_tuning.py tests/gpu/test_gpu_turns.py tests/gpu/test_gpu_long_ops.py)
engines=(tests/gpu/test_connector_replay.py tests/gpu/test_gpu_model.py)
failed=0
run_tests ranks tests/gpu/test_gpu_ranks.py || failed=1
if ((num_gpus > 1)); then
  CUDA_VISIBLE_DEVICES=0 run_tests copies "${copies[@]}" &
  CUDA_VISIBLE_DEVICES=1 run_tests engines "${engines[@]}" || failed=1
  wait $! || failed=1
else
  run_tests copies "${copies[@]}" || failed=1
  run_tests engines "${engines[@]}" || failed=1
fi
((failed == 0)) || { echo "gpu_test: FAILED; the tests' output is above and in $logs" >&2; exit 1; }
if grep -q '^SKIPPED' "$logs"/*.log; then
  echo "gpu_test: passed on $num_gpus GPUs, but for the tests that were skipped"
else
  echo "gpu_test: every test passed on $num_gpus GPUs"
fi

[[ -n $results ]] || exit 0
mkdir -p "$results"
export CUDA_VISIBLE_DEVICES=0
copy() { "$python" -m benchmarks.bench_gpu_copy "$@"; }
aged=(${trace:+--trace "$trace" --requests 4000})
copy --parts copies calls --budget-s 300 --json "$results/copies.json"
copy --parts load --budget-s 300 --json "$results/load.json"
copy --parts latency cpu pools register others --budget-s 260 "${aged[@]}" --json "$results/rest.json"
copy --merge "$results"/{copies,load,rest}.json --svg "$results/gpu_copies.svg" --markdown "$results/tables.md" >"$results/tables.txt"
for what in registration model; do
  "$python" -m "benchmarks.bench_gpu_$what" --json "$results/$what.json"
done

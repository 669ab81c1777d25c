#!/usr/bin/env bash
# clang-tidy over csrc without its tests and fuzz targets; a warning is an error (.clang-tidy).    scripts/tidy.sh [FILE...]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

build=build/tidy
mkdir -p build
PATH=$PWD/.venv/dev/bin:$PATH

cmake -S . -B "$build" -G Ninja -DPython_EXECUTABLE="$PWD/.venv/dev/bin/python" >"$build.configure.log" 2>&1 || {
  cat "$build.configure.log" >&2
  exit 1
}
files=("$@")
if [[ ${#files[@]} -eq 0 ]]; then
  files=(csrc/cache/*.cpp csrc/transfer/*.cpp csrc/storage/*.cpp csrc/cuda/*.cpp csrc/bindings/*.cpp)
fi
log=$build.log
if ! printf '%s\n' "${files[@]}" | xargs -P "${JOBS:-$(nproc)}" -n 2 \
  clang-tidy --quiet -p "$build" --extra-arg=-Wno-unknown-warning-option >"$log" 2>&1; then
  grep -vE '^(\[[0-9]+/[0-9]+\] Processing|[0-9]+ warnings? |Suppressed |Use -header-filter)' "$log" >&2
  echo "tidy: clang-tidy has found something" >&2
  exit 1
fi

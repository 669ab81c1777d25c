#!/usr/bin/env bash
# Builds the native tests without sanitizers and runs the longer campaigns of those that have some.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

build=build/native-long
PATH=$PWD/.venv/dev/bin:$PATH
mkdir -p build
cmake -S . -B "$build" -G Ninja -DFLEXKV_PYTHON=OFF -DFLEXKV_NATIVE_TESTS=ON >"$build.configure.log" 2>&1 || {
  cat "$build.configure.log" >&2
  exit 1
}
for test in test_ssd_crash; do
  ninja -C "$build" -j "${JOBS:-$(nproc)}" --quiet "$test"
  "$build/$test" --long >"$build/$test.log" 2>&1 || {
    tail -c 2000 "$build/$test.log" >&2
    echo "native-long: $test failed; the last seed it names is in $build/$test.log" >&2
    exit 1
  }
  echo "native-long: $test passed"
done

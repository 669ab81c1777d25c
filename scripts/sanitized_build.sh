#!/usr/bin/env bash
# Builds what native_test.sh and sanitized_python.sh share, in one folder.    scripts/sanitized_build.sh SANITIZERS TARGET
# Prints the folder.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

sanitizers=${1:?usage: scripts/sanitized_build.sh SANITIZERS TARGET}
target=${2:?usage: scripts/sanitized_build.sh SANITIZERS TARGET}
build=build/native-${sanitizers//,/-}
python=$PWD/.venv/dev/bin/python
PATH=$PWD/.venv/dev/bin:$PATH

# -Og, with lines but no variables, is compiled in half the time of -O1 -g and runs about as fast under a sanitizer.
# For ccache and the like each file is compiled by itself: of precompiled headers they keep nothing.
as_a_whole=ON
[[ -z ${CMAKE_CXX_COMPILER_LAUNCHER:-} ]] || as_a_whole=OFF
mkdir -p build
cmake -S . -B "$build" -G Ninja -DPython_EXECUTABLE="$python" -DFLEXKV_PYTHON=ON -DFLEXKV_NATIVE_TESTS=ON \
  -DCMAKE_BUILD_TYPE=RelWithDebInfo -DCMAKE_CXX_FLAGS_RELWITHDEBINFO="-Og -g1" \
  -DFLEXKV_UNITY=$as_a_whole -DFLEXKV_PRECOMPILE=$as_a_whole -DFLEXKV_WARNINGS_ARE_ERRORS=ON -DFLEXKV_SANITIZE="$sanitizers" >"$build.configure.log" 2>&1 || { cat "$build.configure.log" >&2; rm -rf "$build"; exit 1; }
ninja -C "$build" -j "${JOBS:-$(nproc)}" --quiet "$target" >&2
echo "$build"

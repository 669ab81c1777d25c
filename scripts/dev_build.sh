#!/usr/bin/env bash
# Builds flexkv._core for the working tree: fast and incremental.
#
#   scripts/dev_build.sh [PYTHON]
#
# With UNITY=ON a tree that is built the first time is built as a whole, which is sooner done; a file that changes is then
# compiled with a dozen others.
#
# PYTHON (default: $FLEXKV_PYTHON, then .venv/dev, then python3) must have nanobind; cmake and ninja are taken from beside
# it when they are there. The result is linked as flexkv/_core.*.so, so that tests run on the tree without an installation.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

python=${1:-${FLEXKV_PYTHON:-}}
if [[ -z $python ]]; then
  if [[ -x .venv/dev/bin/python ]]; then python=.venv/dev/bin/python; else python=python3; fi
fi
python=$(command -v "$python") || { echo "dev_build: no such Python: ${1:-$FLEXKV_PYTHON}" >&2; exit 2; }
# The venv's own link, not the interpreter it points to: nanobind is found through it.
python=$(cd "$(dirname "$python")" && pwd)/$(basename "$python")
PATH=$(dirname "$python"):$PATH

"$python" -c 'import nanobind' 2>/dev/null || {
  echo "dev_build: $python has no nanobind; 'make setup' prepares an environment that has" >&2
  exit 2
}

build=${FLEXKV_BUILD_DIR:-build/dev}
jobs=${FLEXKV_BUILD_JOBS:-$(nproc)}
mkdir -p "$(dirname "$build")"
if command -v flock >/dev/null; then  # one build of a folder at a time
  exec 9>"$build.lock"
  flock 9
fi
# A build folder of another interpreter is reconfigured from scratch: CMake keeps the first one it found.
if [[ -f $build/CMakeCache.txt ]] && ! grep -qF "Python_EXECUTABLE:UNINITIALIZED=$python" "$build/CMakeCache.txt" \
    && ! grep -qF "Python_EXECUTABLE:FILEPATH=$python" "$build/CMakeCache.txt"; then
  rm -f "$build/CMakeCache.txt"
fi
if [[ ! -f $build/build.ninja || ! -f $build/CMakeCache.txt ]]; then
  cmake -S . -B "$build" -G Ninja -DPython_EXECUTABLE="$python" -DFLEXKV_UNITY="${UNITY:-OFF}" \
    -DFLEXKV_WARNINGS_ARE_ERRORS=ON >"$build.configure.log" 2>&1 || {
    cat "$build.configure.log" >&2
    exit 1
  }
fi
ninja -C "$build" -j "$jobs" --quiet _core

suffix=$("$python" -c 'import sysconfig; print(sysconfig.get_config_var("EXT_SUFFIX"))')
library=$(ls "$build"/_core*.so | head -1)
ln -sf "../$library" "flexkv/_core$suffix"
echo "built flexkv/_core$suffix ($build)"

#!/usr/bin/env bash
# Builds the sdist and, from the sdist's content, a manylinux wheel into dist/; then tries the wheel as a user has it.
#
#   scripts/wheel.sh        for the Python of .venv/wheel; PYTHON=python3.13 make wheel builds for another one
#
# The compiler is zig from PyPI, not the system's. A wheel of Debian 12's GCC needs glibc 2.34 and the system's libstdc++;
# zig compiles against the symbols of glibc 2.28, which torch and vLLM ask for too, and links libc++ in (Apache-2.0 with
# LLVM's exception: nothing to reproduce), so that the wheel needs glibc and nothing else. Measured in turns in one
# process, before files were compiled a dozen at a time, hashing, match, insert and evict are as fast as GCC's; mixing an
# array of engine hashes through the binding takes 1.3 times as long, a list 1.1 times, and why is open. Host copies, in
# separate noisy runs, showed no difference that could be told from the noise of some percent. The library is 1.1 MB
# against 0.8 MB, which is without libstdc++.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

glibc=2.28
platform=manylinux_${glibc/./_}_$(uname -m)
python=$PWD/.venv/wheel/bin/python
stage=build/wheel

fail() { printf 'wheel: %s\n' "$*" >&2; exit 1; }

FLEXKV_ZIG=$("$python" -c 'import pathlib, ziglang; print(pathlib.Path(ziglang.__file__).with_name("zig"))')
export FLEXKV_ZIG FLEXKV_GLIBC=$glibc
export ZIG_GLOBAL_CACHE_DIR=$PWD/.venv/wheel/zig-cache ZIG_LOCAL_CACHE_DIR=$PWD/.venv/wheel/zig-cache
export CMAKE_BUILD_PARALLEL_LEVEL=${JOBS:-$(nproc)}
export PATH=$PWD/.venv/wheel/bin:$PATH
unset CC CXX CFLAGS CXXFLAGS LDFLAGS

mkdir -p "$stage" dist
# Debian's Python includes <x86_64-linux-gnu/python3.11/pyconfig.h>, of /usr/include, which zig leaves alone.
FLEXKV_PYTHON_INCLUDE=
multiarch=$("$python" -c 'import pathlib, sysconfig
include = pathlib.Path(sysconfig.get_path("include"))
beside = include.parent / (sysconfig.get_config_var("MULTIARCH") or "-") / include.name
print(beside if (beside / "pyconfig.h").is_file() else "")')
if [[ -n $multiarch ]]; then
  FLEXKV_PYTHON_INCLUDE=$PWD/$stage/include
  rm -rf "$FLEXKV_PYTHON_INCLUDE"
  mkdir -p "$FLEXKV_PYTHON_INCLUDE/$(basename "$(dirname "$multiarch")")"
  ln -s "$multiarch" "$FLEXKV_PYTHON_INCLUDE/$(basename "$(dirname "$multiarch")")/"
fi
export FLEXKV_PYTHON_INCLUDE
rm -rf "$stage"/*.whl "$stage"/*.tar.gz
"$python" -m build --no-isolation --outdir "$stage" \
  -C cmake.args="-DCMAKE_TOOLCHAIN_FILE=$PWD/scripts/zig_toolchain.cmake" . >"$stage/build.log" 2>&1 || {
  cat "$stage/build.log" >&2
  fail "the build failed"
}
rm -f dist/flexkv-*
"$python" -m auditwheel repair --plat "$platform" --only-plat --wheel-dir dist "$stage"/*.whl >"$stage/repair.log" 2>&1 || {
  cat "$stage/repair.log" >&2
  fail "auditwheel does not accept the wheel as $platform"
}
cp "$stage"/*.tar.gz dist/
wheels=(dist/flexkv-*"$platform".whl)
[[ ${#wheels[@]} -eq 1 && -f ${wheels[0]} ]] || fail "expected one wheel for $platform, found: ${wheels[*]}"
"$python" scripts/wheel_library.py "${wheels[0]}"
scripts/wheel_smoke.sh "${wheels[0]}" "$python"

# How a thread is ended in native code depends on the C++ library and its unwinder, which differ from the system's.
version='import sys; print(sys.version_info[:2])'
if [[ $("$python" -c "$version") == $(.venv/dev/bin/python -c "$version") ]]; then
  rm -rf "$stage/unpacked"
  "$python" -m zipfile -e "${wheels[0]}" "$stage/unpacked"
  cp -r tests pyproject.toml "$stage/unpacked"
  (cd "$stage/unpacked" && ../../../.venv/dev/bin/python -P -m pytest -q -p no:cacheprovider \
    --rootdir . tests/faults/test_exit.py tests/faults/test_interrupt.py) || fail "the wheel does not end as it should"
fi

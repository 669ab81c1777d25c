#!/usr/bin/env bash
# Fuzzes with libFuzzer under ASan and UBSan.    FUZZ_SECONDS=60 scripts/fuzz.sh [TARGET...]
#
# A target is csrc/fuzz/TARGET.cpp (default: each, one after the other). What libFuzzer finds worth keeping stays in
# .cache/fuzz/TARGET and is where the next run goes on. An input that breaks a target ends the run and is named together
# with the command that repeats it. Needs clang with its runtime libraries: CLANGXX names it; Debian's is installed with
# apt-get when we may.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

seconds=${FUZZ_SECONDS:-60}
build=build/fuzz
corpus=.cache/fuzz
PATH=$PWD/.venv/dev/bin:$PATH

say() { printf 'fuzz: %s\n' "$*" >&2; }

find_clang() {
  local candidate
  mkdir -p "$build"
  for candidate in ${CLANGXX:-clang++ clang++-19 clang++-14}; do
    if command -v "$candidate" >/dev/null && printf '%s' '#include <span>
extern "C" int LLVMFuzzerTestOneInput(const unsigned char*, unsigned long) { return 0; }' |
      "$candidate" -std=c++20 -fsanitize=fuzzer,address,undefined -x c++ - -o "$build/probe" 2>/dev/null; then
      command -v "$candidate"
      return
    fi
  done
  return 1
}

install_clang() {
  local as_root=()
  if [[ $(id -u) -ne 0 ]]; then
    command -v sudo >/dev/null && sudo -n true 2>/dev/null || return 1
    as_root=(sudo -n)
  fi
  command -v apt-get >/dev/null || return 1
  say "installing system packages: clang-19 libclang-rt-19-dev llvm-19"
  "${as_root[@]}" apt-get -qq update
  DEBIAN_FRONTEND=noninteractive "${as_root[@]}" apt-get -qq install --yes --no-install-recommends \
    clang-19 libclang-rt-19-dev llvm-19 >/dev/null
}

clang=$(find_clang) || { [[ -z ${CLANGXX:-} ]] && install_clang && clang=$(find_clang); } || {
  say "missing on this system: clang with libFuzzer (Debian's packages clang-19 and libclang-rt-19-dev); install them and run again"
  exit 1
}

if [[ ! -f $build/build.ninja ]]; then
  cmake -S . -B "$build" -G Ninja -DFLEXKV_PYTHON=OFF -DFLEXKV_FUZZ=ON -DCMAKE_CXX_COMPILER="$clang" \
    -DCMAKE_BUILD_TYPE=RelWithDebInfo -DCMAKE_CXX_FLAGS_RELWITHDEBINFO="-O1 -g" \
    -DFLEXKV_SANITIZE=fuzzer-no-link,address,undefined >"$build.configure.log" 2>&1 ||
    { cat "$build.configure.log" >&2; rm -rf "$build"; exit 1; }
fi
ninja -C "$build" -j "${JOBS:-$(nproc)}" --quiet

targets=("$@")
if [[ ${#targets[@]} -eq 0 ]]; then
  for source in csrc/fuzz/fuzz_*.cpp; do targets+=("$(basename "$source" .cpp)"); done
fi
export ASAN_OPTIONS=detect_leaks=1:strict_string_checks=1:detect_stack_use_after_return=1
for symbolizer in llvm-symbolizer llvm-symbolizer-19 llvm-symbolizer-14; do  # without one, stacks are numbers
  if command -v "$symbolizer" >/dev/null; then export ASAN_SYMBOLIZER_PATH=${ASAN_SYMBOLIZER_PATH:-$(command -v "$symbolizer")}; fi
done
export UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1
for target in "${targets[@]}"; do
  found=$corpus/$target
  crashes=$corpus/crashes
  log=$build/$target.log
  mkdir -p "$found" "$crashes"
  if ! "$build/$target" -max_total_time="$seconds" -timeout=60 -max_len=600 -rss_limit_mb=4096 -print_final_stats=1 \
    -artifact_prefix="$crashes/$target-" "$found" "csrc/fuzz/corpus/$target" >"$log" 2>&1; then
    tail -n 60 "$log" >&2
    input=$(sed -n 's/.*Test unit written to //p' "$log" | tail -n 1)
    say "$target is broken by ${input:-an input that was not kept}; this repeats it: $build/$target $input"
    exit 1
  fi
  runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
  say "$target: $runs inputs in $seconds s, $(find "$found" -type f | wc -l) kept, none breaks it"
done

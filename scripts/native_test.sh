#!/usr/bin/env bash
# Builds the native tests with a sanitizer and runs them.    scripts/native_test.sh address,undefined | thread
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

sanitizers=${1:?usage: scripts/native_test.sh SANITIZERS}
jobs=${JOBS:-$(nproc)}
build=$(scripts/sanitized_build.sh "$sanitizers" all)
PATH=$PWD/.venv/dev/bin:$PATH

# Thread sanitizer refuses some address space layouts: run it without randomization where that is allowed.
prefix=()
if [[ $sanitizers == thread ]] && setarch "$(uname -m)" -R true 2>/dev/null; then prefix=(setarch "$(uname -m)" -R); fi
export ASAN_OPTIONS=detect_leaks=1:strict_string_checks=1:detect_stack_use_after_return=1
export UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1
export TSAN_OPTIONS=halt_on_error=1:second_deadlock_stack=1
log=$build/ctest.log
if ! "${prefix[@]}" ctest --test-dir "$build" --output-on-failure --no-tests=error -j "$jobs" >"$log" 2>&1; then
  cat "$log" >&2
  echo "native-test: failed under $sanitizers" >&2
  exit 1
fi
grep 'tests passed' "$log" | sed "s/\$/ ($sanitizers)/"

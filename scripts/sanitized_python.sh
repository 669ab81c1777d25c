#!/usr/bin/env bash
# Runs the stress of tests/stress over a core built with sanitizers.
#
#   STRESS_SECONDS=8 scripts/sanitized_python.sh address,undefined | thread
#
# The interpreter and numpy are not instrumented. Under TSan that is enough all the same: the GIL is handed over with a
# mutex and a condition variable, which libtsan sees whoever calls them. tests/stress/*.supp hold what is theirs.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

sanitizers=${1:?usage: scripts/sanitized_python.sh SANITIZERS}
build=$PWD/$(scripts/sanitized_build.sh "$sanitizers" _core)
python=$PWD/.venv/dev/bin/python

# The package as the tree has it, but for the core.
tree=$build/tree
rm -rf "$tree"
mkdir -p "$tree/flexkv"
ln -s "$PWD"/flexkv/* "$tree/flexkv/"
rm -f "$tree"/flexkv/_core*.so
ln -s "$build"/_core*.so "$tree/flexkv/"
ln -s "$PWD/tests" "$tree/tests"

library() { ${CXX:-c++} -print-file-name="$1"; }
prefix=()
case $sanitizers in
  thread)
    runtime=$(library libtsan.so)
    if setarch "$(uname -m)" -R true 2>/dev/null; then prefix=(setarch "$(uname -m)" -R); fi
    ;;
  *) runtime=$(library libasan.so):$(library libubsan.so) ;;
esac
supp=$PWD/tests/stress
# What the interpreter leaves behind is told from ours by the names of its functions, which a stripped one does not have.
interpreter=$("$python" -c 'import os, sys, sysconfig
library = os.path.join(sysconfig.get_config_var("LIBDIR") or "", sysconfig.get_config_var("LDLIBRARY") or "-")
print(os.path.realpath(sys.executable), library if os.path.isfile(library) else "")')
leaks=1
if [[ $sanitizers != thread ]] && ! { nm $interpreter 2>/dev/null || true; } | grep ' PyLong_FromLong$' >/dev/null; then
  leaks=0
  echo "sanitized-python: leaks are not looked for, since ${interpreter%% *} is stripped" >&2
fi
export ASAN_OPTIONS=detect_leaks=$leaks:strict_string_checks=1
export LSAN_OPTIONS=suppressions=$supp/lsan.supp:print_suppressions=0
export UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1
export TSAN_OPTIONS=halt_on_error=1:second_deadlock_stack=1:suppressions=$supp/tsan.supp
cd "$tree"
log=$build/stress.log
# The C++ library comes along: the sanitizer finds its exception functions when it starts.
if ! LD_PRELOAD=$runtime:$(library libstdc++.so) PYTHONPATH=$tree PYTHONMALLOC=malloc \
  timeout $((${STRESS_SECONDS:-8} + 240)) "${prefix[@]}" "$python" -W error -m tests.stress.manager_threads "${STRESS_SECONDS:-8}" >"$log" 2>&1; then
  tail -n 150 "$log" >&2
  echo "sanitized-python: failed under $sanitizers; all of it is in $log" >&2
  exit 1
fi
sed "s/\$/ ($sanitizers)/" "$log" | tail -n 1

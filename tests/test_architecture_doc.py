"""docs/ARCHITECTURE.md names a file for every name of the design: each row is compared with the code."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
DOC = ROOT / "docs" / "ARCHITECTURE.md"
ROW = re.compile(r"^\|[^|`]*`(?P<name>[\w.]+)`\s*\|\s*`(?P<file>[\w./]+)`\s*\|$", re.MULTILINE)
ROWS = [(match["name"], match["file"]) for match in ROW.finditer(DOC.read_text(encoding="utf-8"))]

CONTRACT = [
    "KVManager.start",
    "KVManager.is_ready",
    "KVManager.shutdown",
    "KVManager.get_match",
    "KVManager.put_match",
    "KVManager.get_async",
    "KVManager.put_async",
    "KVManager.prefetch_async",
    "KVManager.launch",
    "KVManager.cancel",
    "KVManager.wait",
    "KVManager.try_wait",
    "KVManager.reset",
    "KVResponse",
    "KVResponseStatus",
    "KVTaskEngine",
    "KVTask",
    "KVTaskManager",
    "KVTaskManager.graph_to_task",
    "TaskStatus",
    "GlobalCacheEngine.match",
    "GlobalCacheEngine.match_all",
    "GlobalCacheEngine.get",
    "GlobalCacheEngine.put",
    "GlobalCacheEngine.cpu_cache_engine",
    "GlobalCacheEngine.ssd_cache_engine",
    "GlobalCacheEngine.remote_cache_engine",
    "CacheEngine.match",
    "CacheEngine.insert",
    "CacheEngine.take",
    "CacheEngine.recycle",
    "CacheEngine.reset",
    "RadixTree",
    "Mempool",
    "TransferEngine.submit_transfer_graph",
    "TransferEngine._worker_map",
    "GPUCPUTransferWorker",
    "GPUCPUTransferWorker.create_worker",
    "TransferScheduler",
    "TransferManagerHandle",
    "StorageEngine.allocate",
    "StorageEngine.get_storage_handle",
    "CPUAllocator",
    "StorageHandle",
    "SequenceMeta.block_hashes",
    "SequenceMeta.gen_hashes",
    "ModelConfig.token_size_in_bytes",
    "CacheConfig.cpu_kv_layout_type",
    "KVCacheLayout.kv_shape",
    "KVCacheLayout.get_block_stride",
    "KVCacheLayoutType",
    "DeviceType",
    "TransferType",
    "TransferOp",
    "TransferOpGraph.add_transfer_op",
    "TransferOpGraph.add_dependency",
    "KVTPClient.register_to_server",
    "FlexKVConfig.from_env",
    "FlexKVConfig.post_init_from_vllm_config",
    "FlexKVConfig.post_init_from_sglang_config",
    "KVRequest",
    "ring_buffer",
    "memory_handle",
    "Tracer",
    "FlexKVSchedulerConnector",
    "FlexKVWorkerConnector",
    "FlexKVGetTask",
    "FlexKVPutTask",
]


def test_every_name_of_the_contract_that_exists_has_a_row():
    assert sorted(set(CONTRACT) - {name for name, _ in ROWS}) == []


def names_in(body: list[ast.stmt]) -> dict[str, ast.stmt]:
    """Return what a module or class body defines or re-exports, by name."""
    names: dict[str, ast.stmt] = {}
    for node in body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            names[node.name] = node
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names[node.target.id] = node
        elif isinstance(node, ast.Assign):
            names.update({target.id: node for target in node.targets if isinstance(target, ast.Name)})
        elif isinstance(node, ast.ImportFrom):
            names.update({alias.asname or alias.name: node for alias in node.names})
    return names


def attributes_of(node: ast.ClassDef) -> dict[str, ast.stmt]:
    """Return what the class's constructor assigns to `self`, by name."""
    found: dict[str, ast.stmt] = {}
    for method in node.body:
        if isinstance(method, ast.FunctionDef) and method.name == "__init__":
            for statement in ast.walk(method):
                targets = getattr(statement, "targets", None) or [getattr(statement, "target", None)]
                if isinstance(statement, ast.Assign | ast.AnnAssign):
                    found.update({target.attr: statement for target in targets if isinstance(target, ast.Attribute)})
    return found


def has_member(names: dict[str, ast.stmt], name: str, member: str) -> bool:
    """Return whether a class of the module, or a base of it in the same module, defines `member`."""
    node = names.get(name)
    if not isinstance(node, ast.ClassDef):
        return False
    bases = [base.id for base in node.bases if isinstance(base, ast.Name)]
    return member in names_in(node.body) | attributes_of(node) or any(has_member(names, base, member) for base in bases)


def defined_in_python(name: str, path: Path) -> bool:
    names = names_in(ast.parse(path.read_text(encoding="utf-8")).body)
    first, _, member = name.partition(".")
    if first == path.stem:
        return True
    if first not in names:
        return False
    return not member or has_member(names, first, member)


def defined_in_header(name: str, path: Path) -> bool:
    text = path.read_text(encoding="utf-8")
    return re.search(rf"\b(class|struct|enum class)\s+{name}\b|\b{name}\s*\(", text) is not None


def test_the_table_has_the_names_of_the_design() -> None:
    assert len(ROWS) > 80
    assert len(set(ROWS)) == len(ROWS)


@pytest.mark.parametrize(("name", "file"), ROWS)
def test_a_name_lives_in_the_file_the_table_gives(name: str, file: str) -> None:
    path = ROOT / file
    assert path.is_file(), f"{file} does not exist"
    defined = defined_in_header if path.suffix == ".h" else defined_in_python
    assert defined(name, path), f"{name} is not defined in {file}"


def test_names_of_later_stages_are_absent() -> None:
    text = DOC.read_text(encoding="utf-8")
    later = text[text.index("## Names of the design that come with later stages") :]
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "flexkv").rglob("*.py")]
    for name in re.findall(r"`([A-Z]\w+)`", later):
        assert not any(re.search(rf"^class {name}\b", source, re.MULTILINE) for source in sources), f"{name} exists now"
    for file in re.findall(r"`(flexkv/[\w/]+\.py)`", later):
        assert not (ROOT / file).exists(), f"{file} exists now"


def test_every_package_and_module_of_the_product_is_reachable_from_the_drawing_or_the_tables() -> None:
    text = DOC.read_text(encoding="utf-8")
    for package in (path.parent for path in (ROOT / "flexkv").glob("*/__init__.py")):
        assert f"{package.name}/" in text, f"docs/ARCHITECTURE.md does not mention flexkv/{package.name}/"

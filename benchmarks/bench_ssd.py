"""How fast does the SSD tier write and read blocks, at what cost in CPU, and how soon does it serve after a restart?

Unit: GB/s (10^9 bytes) of blocks, median of rounds, checksums made and verified. Blocks hold fresh random bytes; what
was read is compared by block. In the same rounds, first or last in turn, on the store's own data file once its
blocks were compared (where a file lies on the disk alone can make a difference of a third), at the same block size and
depth:

- fio (io_uring, O_DIRECT, registered buffers). The target is 0.95 of it. It moves few buffers again and again, which
  stay in the CPU's caches: where the disk is another machine's memory, that alone is worth 5 to 15 %.
- the disk engine alone, on the pool's memory: no records, no checksums. Ours beside it is what all the rest costs.

What the pages are counts for all: of 4 KiB pages the kernel and the device make many pieces. Use huge pages (`sysctl
vm.nr_hugepages`: 2 MiB each, as many as --mib has, and 5 % more); fio gets them where the pool does. The CPU cost is
that of the whole process (fio: its own report). The checksum: its rate over memory that no cache holds, beside the rate
at which the same memory is read (numpy's sum of words). The restart: seconds from the start of a new manager, with the
page cache of the files dropped, to the end of the first load from the SSD tier, by number of records.

    .venv/dev/bin/python -m benchmarks.bench_ssd --directory DIR            a table; DIR on the SSD to measure
    .venv/dev/bin/python -m benchmarks.bench_ssd --depths --records 1000000 the restart alone
    .venv/dev/bin/python -m benchmarks.bench_ssd --records                  the copies alone
    .venv/dev/bin/python -m benchmarks.bench_ssd --tiny                     a smoke test: JSON to standard output
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from benchmarks.report import KIB, MIB, Figure, emit, number, parser, say
from flexkv import CacheConfig, KVManager, ModelConfig, _core
from flexkv.common.address import own_socket
from flexkv.common.transfer import DiskBlocks, TransferOp, TransferOpGraph, TransferType
from flexkv.server.client import KVTPClient
from flexkv.transfer.transfer_engine import TransferEngine

WAIT_S = 300.0
TOKENS_PER_BLOCK = 16
FIO = shutil.which("fio")
DIRECTIONS = ("write", "read")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the table."""

    direction: str
    block_kib: int
    depth: int
    io_engine: str
    page_kind: str
    ours_gbs: float
    fio_gbs: float | None
    ratio: float | None
    alone_gbs: float
    of_alone: float
    cpu_s_per_gb: float
    fio_cpu_s_per_gb: float | None


@dataclass(frozen=True, slots=True)
class Sample:
    """What one round gave in one direction; `fio` is (GB/s, CPU seconds per GB)."""

    ours_gbs: float
    cpu_s_per_gb: float
    alone_gbs: float
    fio: tuple[float, float] | None


class Rig:
    """A transfer engine with a rank, a host pool and an SSD store of as many slots."""

    def __init__(self, directory: Path, num_blocks: int, block_bytes: int, depth: int, io_engine: str) -> None:
        self.num_blocks, self.block_bytes, self.io_engine = num_blocks, block_bytes, io_engine
        self.engine = TransferEngine(own_socket())
        self.engine.start()
        gpu = np.zeros((2, 2, TOKENS_PER_BLOCK, block_bytes // (2 * TOKENS_PER_BLOCK)), dtype=np.uint8)
        self.client = KVTPClient(self.engine.socket_path, tokens_per_block=TOKENS_PER_BLOCK)
        self.client.register_to_server([gpu], block_dim=0)
        assert self.engine.wait_ranks(WAIT_S)
        self.pool = _core.HostPool(num_blocks, [block_bytes])
        assert self.pool.wait_prefaulted(num_blocks, WAIT_S)
        self.engine.set_pool(self.pool)
        stride = self.pool.stride_bytes(0)
        capacity = _core.ssd_footprint_bytes(num_blocks, stride)
        self.store = _core.SsdStore(
            [str(directory)], "be" * 16, "benchmark", [stride], TOKENS_PER_BLOCK, capacity, io_engine, depth, depth
        )
        assert self.store.num_slots >= num_blocks
        self.store.scan()
        self.engine.set_disk(self.store)
        self.rng = np.random.default_rng(block_bytes + depth)
        self.slots = self.rng.permutation(num_blocks).astype(np.int64)
        self.keys = self.rng.integers(1, 256, (num_blocks, 16), dtype=np.uint8)

    def close(self) -> None:
        """Stop everything."""
        self.client.shutdown()
        self.engine.shutdown()
        assert self.store.stop(WAIT_S)

    def fill(self) -> None:
        """Put fresh random bytes into every host slot."""
        for slot in range(self.num_blocks):
            self.pool.view(0, slot)[:] = self.rng.integers(0, 256, self.block_bytes, dtype=np.uint8)

    def poison(self) -> None:
        """Overwrite every host slot."""
        for slot in range(self.num_blocks):
            self.pool.view(0, slot)[:] = 0xA5

    def digest(self) -> list[int]:
        """Return a number for the bytes of each host slot."""
        return [hash(self.pool.view(0, slot).tobytes()) for slot in range(self.num_blocks)]

    def write_and_read(self) -> dict[str, tuple[float, float]]:
        """Write every block and read it back; (GB/s, CPU seconds per GB) of each. What is read is compared."""
        gigabytes = self.num_blocks * self.block_bytes / 1e9
        self.fill()
        before = self.digest()
        figures = {}
        for direction, route in (("write", TransferType.H2DISK), ("read", TransferType.DISK2H)):
            if direction == "read":
                self.poison()
            begin_cpu_s = cpu_s()
            seconds = self.move(route)
            figures[direction] = (gigabytes / seconds, (cpu_s() - begin_cpu_s) / gigabytes)
        assert self.digest() == before, "what was read is not what was written"
        return figures

    def move(self, route: TransferType) -> float:
        """Move every block once, as chunks of 8; returns the seconds it took."""
        graph = TransferOpGraph()
        host = np.arange(self.num_blocks, dtype=np.int64)
        writes = route is TransferType.H2DISK
        for start in range(0, self.num_blocks, 8):
            chunk = slice(start, start + 8)
            keys = np.ascontiguousarray(self.keys[chunk])
            disk = DiskBlocks(keys=keys, parents=np.zeros_like(keys) if writes else None)
            src, dst = (host[chunk], self.slots[chunk]) if writes else (self.slots[chunk], host[chunk])
            graph.add_transfer_op(TransferOp(transfer_type=route, src_block_ids=src, dst_block_ids=dst, disk=disk))
        begin_ns = time.perf_counter_ns()
        self.engine.submit_transfer_graph(graph, WAIT_S)
        is_released = False
        while not is_released:
            assert self.engine.wait(WAIT_S)
            for completion in self.engine.poll():
                assert completion.status == _core.OpStatus.DONE, completion.error
                is_released |= completion.kind == _core.CompletionKind.GRAPH_RELEASED
        return (time.perf_counter_ns() - begin_ns) / 1e9


@dataclass(frozen=True, slots=True)
class Fio:
    """fio on the store's data file: what lies there is gone after a run that writes."""

    path: Path
    num_bytes: int
    block_bytes: int
    depth: int
    has_huge_pages: bool

    def run(self, direction: str) -> tuple[float, float] | None:
        """Return (GB/s, CPU seconds per GB), or None where there is no fio."""
        if FIO is None:
            return None
        command = [
            FIO, "--name=beside", f"--filename={self.path}", "--direct=1", "--ioengine=io_uring",
            f"--bs={self.block_bytes}", f"--iodepth={self.depth}", f"--rw=rand{direction}", f"--size={self.num_bytes}",
            "--randrepeat=0", "--norandommap=0", "--output-format=json", "--fallocate=none", "--fixedbufs=1",
            "--allow_file_create=0", "--iomem=mmaphuge" if self.has_huge_pages else "--iomem=mmap",
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=WAIT_S)
        job = json.loads(done.stdout[done.stdout.index("{") :])["jobs"][0]
        moved = job[direction]
        seconds = moved["runtime"] / 1e3
        cpu_s = (job["usr_cpu"] + job["sys_cpu"]) / 100 * seconds
        return moved["bw_bytes"] / 1e9, cpu_s / (moved["io_bytes"] / 1e9)


def cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def measure(directory: Path, total_bytes: int, block_bytes: int, depth: int, rounds: int, engine: str) -> list[Row]:
    """Take turns with fio and the engine alone; the first round warms all up."""
    num_blocks = max(8, total_bytes // block_bytes)
    rig = Rig(directory, num_blocks, block_bytes, depth, engine)
    page_kind = rig.pool.page_kind
    (data,) = directory.rglob("data")
    fio = Fio(data, num_blocks * block_bytes, block_bytes, depth, page_kind == "hugetlb")
    samples: dict[str, list[Sample]] = {direction: [] for direction in DIRECTIONS}
    try:
        for round_ in range(rounds + 1):
            beside = beside_us(rig, fio, data) if round_ % 2 else None
            own = rig.write_and_read()
            alone, others = beside or beside_us(rig, fio, data)
            for direction in DIRECTIONS:
                samples[direction].append(Sample(*own[direction], alone[direction], others[direction]))
        made_with = (rig.store.devices()[0].io_engine, page_kind)
    finally:
        rig.close()
    return [row_of(direction, block_bytes, depth, made_with, taken[1:]) for direction, taken in samples.items()]


def beside_us(rig: Rig, fio: Fio, data: Path) -> tuple[dict[str, float], dict[str, tuple[float, float] | None]]:
    """Return what the disk engine alone and fio come to, by direction. What lies in the file is gone."""
    gigabytes = rig.num_blocks * rig.block_bytes / 1e9
    alone, others = {}, {}
    for direction in DIRECTIONS:
        is_write = direction == "write"
        alone[direction] = gigabytes / _core.time_disk(
            rig.pool, str(data), rig.slots, fio.depth, is_write, rig.io_engine
        )
        others[direction] = fio.run(direction)
    return alone, others


def row_of(
    direction: str,
    block_bytes: int,
    depth: int,
    made_with: tuple[str, str],
    samples: list[Sample],
) -> Row:
    beside = [each.fio for each in samples if each.fio is not None]
    ratios = [each.ours_gbs / each.fio[0] for each in samples if each.fio is not None]
    return Row(
        direction=direction,
        block_kib=block_bytes // KIB,
        depth=depth,
        io_engine=made_with[0],
        page_kind=made_with[1],
        ours_gbs=statistics.median(each.ours_gbs for each in samples),
        fio_gbs=statistics.median(rate for rate, _ in beside) if beside else None,
        ratio=statistics.median(ratios) if ratios else None,
        alone_gbs=statistics.median(each.alone_gbs for each in samples),
        of_alone=statistics.median(each.ours_gbs / each.alone_gbs for each in samples),
        cpu_s_per_gb=statistics.median(each.cpu_s_per_gb for each in samples),
        fio_cpu_s_per_gb=statistics.median(cost for _, cost in beside) if beside else None,
    )


class Engine:
    """A KVManager with an SSD tier of 4 KiB blocks, and its rank."""

    LONGEST = 8192

    def __init__(self, directory: Path, num_records: int) -> None:
        tokens, head = 8, 64
        self.num_gpu_blocks = self.LONGEST
        gpu = np.random.default_rng(0).random((2, self.num_gpu_blocks, tokens, 1, head), dtype=np.float32)
        self.gpu, self.tokens = gpu, tokens
        config = CacheConfig(
            tokens_per_block=tokens,
            num_cpu_blocks=4 * self.LONGEST,
            enable_ssd=True,
            fingerprint="f1a6",
            ssd_cache_dir=(str(directory),),
            num_ssd_blocks=num_records + num_records // 16,
            ssd_write_queue_s=60.0,
            transfer_timeout_s=WAIT_S,
        )
        self.manager = KVManager(ModelConfig(1, 1, head, dtype="float32"), config)
        self.manager.start()
        self.client = KVTPClient(self.manager.gpu_register_port, tokens_per_block=tokens)
        self.client.register_to_server({"layer": gpu})
        assert self.manager.wait_ready(WAIT_S)

    def prompt(self, index: int, num_blocks: int) -> np.ndarray:
        """Return tokens that no other prompt begins with."""
        return np.arange(num_blocks * self.tokens, dtype=np.int64) + index * 1_000_003

    def mapping(self, num_blocks: int) -> np.ndarray:
        """Return the slots of the first GPU blocks."""
        return np.arange(num_blocks * self.tokens, dtype=np.int64)

    def store(self, num_records: int) -> None:
        """Have so many blocks written to the SSD tier."""
        for index, start in enumerate(range(0, num_records, self.LONGEST)):
            count = min(self.LONGEST, num_records - start)
            task = self.manager.put_async(self.prompt(index, count), self.mapping(count))
            self.manager.wait(task, timeout=WAIT_S, completely=True)
        stored = self.manager.stats().ssd_stored_blocks
        assert stored == num_records, f"{stored} of {num_records} blocks were written"

    def first_hit(self, num_blocks: int) -> None:
        """Load the first prompt; its bytes must be those that were stored."""
        expected = self.gpu[:, :num_blocks].copy()
        self.gpu[:, :num_blocks] = 0
        task, mask = self.manager.get_match(self.prompt(0, num_blocks))
        assert int(mask.sum()) == num_blocks * self.tokens, "the first prompt is not held"
        self.manager.launch(task, [self.mapping(num_blocks)])
        self.manager.wait(task, timeout=WAIT_S)
        assert np.array_equal(self.gpu[:, :num_blocks], expected), "what was loaded is not what was stored"

    def close(self) -> None:
        """Stop everything; what is due is written."""
        self.client.shutdown()
        assert self.manager.shutdown(WAIT_S)


def drop_caches(directory: Path) -> None:
    """Let the page cache of the files go."""
    for path in directory.rglob("*"):
        if path.is_file():
            fd = os.open(path, os.O_RDONLY)
            os.fsync(fd)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(fd)


def restart_s(directory: Path, num_records: int, rounds: int) -> float:
    """Return the seconds from a new manager to the end of its first load from the SSD tier; median."""
    engine = Engine(directory, num_records)
    engine.store(num_records)
    engine.close()
    taken = []
    for _ in range(rounds):
        drop_caches(directory)
        begin_ns = time.perf_counter_ns()
        engine = Engine(directory, num_records)
        engine.first_hit(64)
        taken.append((time.perf_counter_ns() - begin_ns) / 1e9)
        engine.close()
    return statistics.median(taken)


def checksum_gbs(num_bytes: int, rounds: int) -> tuple[float, float]:
    """Return the median rate of the checksum and that of a plain read, in alternating rounds over the same memory."""
    memory = np.random.default_rng(1).integers(0, 2**63, num_bytes // 8, dtype=np.int64)
    ours, reads = [], []
    for _ in range(rounds):
        for taken, work in ((ours, lambda: _core.crc64(memory.view(np.uint8))), (reads, memory.sum)):
            begin_ns = time.perf_counter_ns()
            work()
            taken.append(num_bytes / (time.perf_counter_ns() - begin_ns))
    return statistics.median(ours), statistics.median(reads)


def copies(arguments: object, root: Path, tiny: bool) -> Iterator[Row]:
    total, rounds = (16 * MIB, 1) if tiny else (arguments.mib * MIB, arguments.rounds)  # type: ignore[attr-defined]
    for block_bytes in (2 * MIB, 256 * KIB):
        for depth in (4,) if tiny else arguments.depths:  # type: ignore[attr-defined]
            with tempfile.TemporaryDirectory(dir=root) as directory:
                yield from measure(Path(directory), total, block_bytes, depth, rounds, arguments.engine)  # type: ignore[attr-defined]


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--directory", type=Path, help="on the SSD to measure; default: that of temporary files")
    options.add_argument("--mib", type=int, default=512, help="MiB moved by one round")
    options.add_argument("--rounds", type=int, default=7)
    options.add_argument("--engine", default="auto", help="io_uring, threads or auto")
    options.add_argument("--depths", type=int, nargs="*", default=[1, 4, 16, 32], help="of the copies; none: no copies")
    options.add_argument("--records", type=int, nargs="*", help="of the restart; default: 10000 100000 1000000")
    arguments = options.parse_args()
    root = arguments.directory or Path(tempfile.gettempdir())
    rows, figures = [], []
    for row in copies(arguments, root, arguments.tiny):
        how = f"depth {row.depth}, {row.io_engine}, {row.page_kind} pages"
        work = f"SSD {row.direction}, blocks of {row.block_kib} KiB, {how}"
        beside = f"{number(row.ours_gbs)} of {number(row.fio_gbs)} GB/s; fio"
        cost = f"CPU {number(row.cpu_s_per_gb)} s per GB, fio {number(row.fio_cpu_s_per_gb)}"
        alone = f"{number(row.alone_gbs)} GB/s; the engine alone"
        say(f"{work}: {beside}; {alone}; {cost}")
        rows.append(asdict(row))
        figures.append(Figure(question=work, unit="of the engine alone", ours=row.of_alone, peer=alone, peers=1.0))
        if row.ratio is not None:
            must = 0.95 if row.depth >= 4 else None
            figures.append(
                Figure(question=work, unit="of fio", ours=row.ratio, must=must, at_least=True, peer=beside, peers=1.0)
            )
    checksum, read = checksum_gbs(*((16 * MIB, 1) if arguments.tiny else (512 * MIB, 9)))
    share = 7 / checksum
    rows.append({"implementation": _core.crc64_implementation(), "checksum_gbs": checksum, "plain_read_gbs": read})
    figures += [
        Figure(
            question=f"checksum ({_core.crc64_implementation()})",
            unit="GB/s",
            ours=checksum,
            peer="plain read",
            peers=read,
        ),
        Figure(question="checksum at 7 GB/s", unit="cores", ours=share, must=0.05, peer="plain read", peers=7 / read),
    ]
    counts = arguments.records if arguments.records is not None else [10_000, 100_000, 1_000_000]
    for count in [2000] if arguments.tiny else counts:
        with tempfile.TemporaryDirectory(dir=root) as directory:
            seconds = restart_s(Path(directory), count, 1 if arguments.tiny else 3)
        say(f"restart with {count:,} records: {seconds:.2f} s to the first hit")
        rows.append({"records": count, "seconds": seconds})
        must = 1.0 if count == 1_000_000 else None
        figures.append(Figure(question=f"restart, {count:,} records", unit="s to first hit", ours=seconds, must=must))
    emit("ssd", arguments, figures, rows)


if __name__ == "__main__":
    main()

"""A host process of a cache, for tests that end, interrupt or fork it with copies in flight.

    python tests/faults/host.py one|two SCENARIO DIRECTORY

`one`: the rank is in this process; `two`: it has one of its own. Four blocks are stored; a load of them and a store of
three others are held at the gate. Files of the cache go to TMPDIR.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from flexkv.common.request import KVResponseStatus as Status
from flexkv.errors import ServerError
from flexkv.kvmanager import KVManager
from tests.rig import TPB, Pair, Rig, eventually, slots_of, tokens

NUM_STORED, NUM_NEW, NUM_SLOTS = 4, 3, 16
EXIT_CODE = 3
NUM_CHILDREN = 4
HELD_S = 120.0  # no copy times out while it is held


class Host:
    """The cache with its copies in flight."""

    def __init__(self, set_up: str, directory: Path) -> None:
        self.rig = Rig(num_cpu_blocks=NUM_SLOTS, transfer_timeout_s=HELD_S) if set_up == "one" else None
        self.pair = Pair(directory, num_cpu_blocks=NUM_SLOTS, transfer_timeout_s=HELD_S) if set_up == "two" else None
        self.manager: KVManager = (self.rig or self.pair).manager  # type: ignore[union-attr]
        stored = self.manager.put_async(tokens(NUM_STORED), slots_of(range(NUM_STORED)))
        assert self.status(stored) is Status.SUCCESS
        self.hold(True)
        self.load = self.manager.get_async(tokens(NUM_STORED), slots_of([50, 51, 52, 53]))
        self.store = self.manager.put_async(tokens(NUM_NEW, first=500), slots_of([60, 61, 62]))

    def hold(self, held: bool) -> None:
        if self.rig is not None:
            self.rig.client.hold(held)
        else:
            assert self.pair is not None
            self.pair.worker.tell(f"hold {held:d}")

    def status(self, task_id: int, timeout: float = 20.0) -> Status:
        return self.manager.wait(task_id, timeout=timeout)[task_id].status

    def check_still_held(self) -> None:
        """No slot that a held copy may touch is handed out, and the books balance."""
        self.manager.check_invariants()
        assert self.status(self.load, timeout=0) is Status.TIMEOUT
        assert self.status(self.store, timeout=0) is Status.TIMEOUT
        other, mask = self.manager.put_match(tokens(NUM_SLOTS, first=9000))
        assert mask.sum() == (NUM_SLOTS - NUM_STORED - NUM_NEW) * TPB
        self.manager.cancel(other)

    def check_ends_well(self) -> None:
        """The copies go on as if nothing had happened."""
        self.hold(False)
        assert self.status(self.load) is self.status(self.store) is Status.SUCCESS
        self.manager.check_invariants()

    def close(self) -> None:
        (self.rig or self.pair).close()  # type: ignore[union-attr]


def say(line: str) -> None:
    print(line, flush=True)


def in_threads(count: int, body: Callable[[], None]) -> None:
    for _ in range(count):
        threading.Thread(target=body, daemon=True).start()


# --- ends, none of them with a shutdown


def exits(host: Host) -> None:
    sys.exit(EXIT_CODE)


def raises(host: Host) -> None:
    raise RuntimeError("nobody handles this")


def exits_at_once(host: Host) -> None:
    os._exit(EXIT_CODE)


def exits_under_waiting_threads(host: Host) -> None:
    in_threads(8, lambda: host.manager.wait([host.load, host.store], timeout=60.0) and None)
    assert eventually(lambda: host.manager._engine._gate.num_sleepers == 8)
    sys.exit(EXIT_CODE)


def exits_under_busy_threads(host: Host) -> None:
    """Threads that are in native calls without the GIL when the interpreter ends."""
    transfer = host.manager._engine._transfer
    running = threading.Barrier(5)

    def ask() -> None:
        running.wait(20)
        while True:
            transfer.poll()
            transfer.wait(0.001)  # type: ignore[attr-defined]
            host.manager.cancel(host.manager.get_match(tokens(NUM_STORED))[0])

    in_threads(4, ask)
    running.wait(20)
    sys.exit(EXIT_CODE)


def is_killed(host: Host) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


# --- Ctrl-C


def say_when_asleep(host: Host) -> None:
    """The test sends SIGINT once it has read the line."""

    def watch() -> None:
        assert eventually(lambda: host.manager._engine._gate.num_sleepers == 1)
        say("waiting")

    in_threads(1, watch)


def interrupted(host: Host, wait: Callable[[], object]) -> None:
    try:
        wait()
    except KeyboardInterrupt:
        say("interrupted")
    host.check_still_held()
    say("checked")
    sys.exit(EXIT_CODE)


def is_interrupted_in_a_wait(host: Host) -> None:
    say_when_asleep(host)
    interrupted(host, lambda: host.manager.wait([host.load], timeout=60.0))


def is_interrupted_in_wait_any(host: Host) -> None:
    say_when_asleep(host)
    interrupted(host, lambda: host.manager.wait_any(60.0))


def is_interrupted_in_a_native_wait(host: Host) -> None:
    def wait() -> None:
        say("waiting")
        host.manager._engine._transfer.wait(60.0)  # type: ignore[attr-defined]

    interrupted(host, wait)


def is_interrupted_unhandled(host: Host) -> None:
    say_when_asleep(host)
    host.manager.wait([host.load], timeout=60.0)


# --- fork


def forked(host: Host, child: Callable[[], None]) -> None:
    """Fork under threads that use the cache; the child does its part, the parent goes on."""
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            host.manager.cancel(host.manager.get_match(tokens(NUM_STORED))[0])

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    codes = []
    for _ in range(NUM_CHILDREN):
        pid = os.fork()
        if pid == 0:
            faulthandler.dump_traceback_later(20, exit=True)  # a child that hangs says where
            child()
            sys.exit(0)  # with all that an interpreter does at its end
        codes.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    stop.set()
    for thread in threads:
        thread.join(20)
    assert codes == [0] * NUM_CHILDREN, codes
    host.check_still_held()
    host.check_ends_well()
    host.close()
    sys.exit(EXIT_CODE)


def forks_a_child_that_does_nothing(host: Host) -> None:
    forked(host, lambda: None)


def forks_a_child_that_calls_verbs(host: Host) -> None:
    manager, parent = host.manager, os.getpid()
    verbs: list[Callable[[], object]] = [
        lambda: manager.get_match(tokens(1)),
        lambda: manager.put_match(tokens(1)),
        lambda: manager.get_span(manager.sequence(tokens(1))),
        lambda: manager.put_span(manager.sequence(tokens(1))),
        lambda: manager.misses(bytes(16), first_key=bytes(16), num_blocks=1),
        lambda: manager.get_async(tokens(1), slots_of([1])),
        lambda: manager.put_async(tokens(1), slots_of([1])),
        lambda: manager.prefetch_async(tokens(1)),
        lambda: manager.launch([host.load], [slots_of([1])]),
        lambda: manager.cancel([host.load]),
        lambda: manager.doom([host.store]),
        lambda: manager.wait([host.load], timeout=0),
        lambda: manager.try_wait([host.load]),
        manager.poll,
        lambda: manager.wait_any(0.0),
        manager.reset,
        manager.stats,
        manager.is_ready,
        manager.check_invariants,
        lambda: manager.num_running,
    ]

    def is_refused(verb: Callable[[], object]) -> bool:
        try:
            verb()
        except ServerError as error:
            return f"belongs to process {parent}" in str(error)
        return False

    def child() -> None:
        if not all(is_refused(verb) for verb in verbs):
            os._exit(11)
        if not manager.shutdown():
            os._exit(12)

    forked(host, child)


def forks_a_child_that_outlives_it(host: Host) -> None:
    """The child keeps every descriptor open until the test has closed its pipe."""
    if os.fork() == 0:
        sys.stdin.read()
        os._exit(0)
    host.check_ends_well()
    assert host.manager.shutdown()
    second = Host("one" if host.rig is not None else "two", Path(sys.argv[3]))
    second.check_ends_well()
    say("ended")
    sys.exit(EXIT_CODE)


def main() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job starts with it ignored
    set_up, scenario, directory = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    host = Host(set_up, directory)
    globals()[scenario](host)


if __name__ == "__main__":
    main()

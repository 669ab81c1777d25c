"""A process with an SSD tier, for tests that limit, interrupt or fork it, or run it beside another one.

python tests/faults/ssd_host.py SCENARIO DIRECTORY NUMBER
"""

from __future__ import annotations

import os
import resource
import signal
import sys
import tempfile
from pathlib import Path

from flexkv.errors import ConfigError
from flexkv.tasks.ssd_tier import SsdState
from tests.faults.ssd_rig import CALL_TIMEOUT_S, SsdRig
from tests.rig import READY_TIMEOUT_S, eventually

EXIT_CODE = 3
MAX_CHAINS = 100_000


def say(line: str) -> None:
    print(line, flush=True)


def starts(directory: Path, **config: object) -> None:
    """Say what becomes of a start, and that the CPU tier serves."""
    rig = SsdRig(directory, wait=False, **config)  # type: ignore[arg-type]
    try:
        assert rig.manager.wait_ready(READY_TIMEOUT_S)
        say(rig.manager._engine._ssd.state.value)
    except ConfigError as error:
        say(f"ConfigError: {error}")
        assert rig.manager.stats().slots_total > 0
    rig.check_serves_from_host()
    say("serves from host memory")
    rig.close()


def is_limited(directory: Path, max_file_bytes: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (max_file_bytes, max_file_bytes))
    starts(directory)


def is_user(directory: Path, user: int) -> None:
    with tempfile.TemporaryDirectory() as own:  # imports all: afterwards it may not be allowed to
        SsdRig(own).close()
    os.environ.pop("TMPDIR")
    tempfile.tempdir = None
    os.setgid(user)
    os.setuid(user)
    starts(directory)


def serves_until_told(directory: Path, _: int) -> None:
    """Serve from the directory until a line comes."""
    rig = SsdRig(directory)
    assert rig.put(1, 6)
    say(rig.state.value)
    sys.stdin.readline()
    rig.close()
    say("closed")


def writes_for_ever(directory: Path, _: int) -> None:
    """Put chain after chain, and say which are written, until a signal ends it."""
    rig = SsdRig(directory, num_cpu_blocks=32, num_ssd_blocks=64)
    say("writing")
    for chain in range(MAX_CHAINS):
        assert rig.put(chain, 6)
        say(str(chain))


def resets_and_is_killed(directory: Path, _: int) -> None:
    rig = SsdRig(directory)
    for chain in range(3):
        assert rig.serve(chain, 6) == 6
    rig.manager.reset()
    os.kill(os.getpid(), signal.SIGKILL)


def resets_while_it_opens_and_is_killed(directory: Path, _: int) -> None:
    rig = SsdRig(directory, wait=False)
    assert eventually(lambda: rig.state is not SsdState.WAITING)
    rig.manager.reset()
    os.kill(os.getpid(), signal.SIGKILL)


def forks_a_child_that_ends(directory: Path, _: int) -> None:
    """With writes under way the child ends as an interpreter does; the parent goes on."""
    rig = SsdRig(directory)
    assert rig.put(1, 6)
    for _attempt in range(4):
        pid = os.fork()
        if pid == 0:
            sys.exit(0)
        assert rig.put(2 + _attempt, 4)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    rig.forget_host_blocks()
    assert rig.serve(1, 6) == 6
    rig.check_books()
    rig.close()
    sys.exit(EXIT_CODE)


def forks_a_child_that_outlives_its_parent(directory: Path, close_first: int) -> None:
    """The child lives until the test closes its pipe. `close_first`: the parent ends in order, else it is killed."""
    rig = SsdRig(directory)
    assert rig.put(1, 6)
    if os.fork() == 0:
        say("child")
        sys.stdin.read()
        os._exit(0)
    if close_first:
        rig.close()
        say("closed")
        os._exit(EXIT_CODE)
    os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job starts with it ignored
    scenario, directory, number = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    globals()[scenario](directory, number)


assert CALL_TIMEOUT_S <= READY_TIMEOUT_S

if __name__ == "__main__":
    main()

"""StoreThread: works off a StoreQueue while the model runs, so that vLLM's scheduler does not wait for it.

The scheduler says at the end of each step when to begin. The engine then hands the step out to its workers, which needs
the interpreter too: the thread lets it go first.
"""

from __future__ import annotations

import threading
from queue import Empty, SimpleQueue

from flexkv.common.debug import flexkv_logger
from flexkv.common.process import OwnProcess
from flexkv.integration.vllm.store_queue import StoreQueue

__all__ = ["StoreThread"]

logger = flexkv_logger(__name__)

HAND_OUT_S = 0.001
"""What the engine gets to hand a step out."""
MAX_DELAY_S = 0.05
"""After that long without a step what is left is worked off as well."""
STOP_TIMEOUT_S = 5.0


class StoreThread:
    """Runs until `stop`. What it dies of is logged, and raised by `check`. Thread safety: all methods, any thread.

    In a forked child there is no thread: nothing waits for it there.
    """

    def __init__(self, queue: StoreQueue) -> None:
        self._queue = queue
        self._wakes: SimpleQueue[None] = SimpleQueue()  # cheaper to put to than an Event is to set
        self._is_idle = False
        self._stopping = threading.Event()
        self._error: BaseException | None = None
        self._process = OwnProcess()
        self.thread = threading.Thread(target=self._run, name="fkv-stores", daemon=True)
        self.thread.start()

    def check(self) -> None:
        """Raise RuntimeError if the thread has died: what is ordered will never be launched."""
        if self._error is not None:
            raise RuntimeError("the thread that makes stores has died") from self._error

    def begin(self) -> None:
        """A step was planned: work off what is ordered."""
        self._wakes.put(None)

    def notice(self) -> None:
        """Something was ordered between steps; the next one may be long in coming."""
        if self._is_idle:
            self._wakes.put(None)

    def stop(self) -> None:
        """Let the thread end after what it is at, and wait for that, with a bound. Idempotent.

        While orders are left it is at them: drop them first.
        """
        if self._process.is_forked_child:
            return
        self._stopping.set()
        self._wakes.put(None)
        self.thread.join(STOP_TIMEOUT_S)

    def _run(self) -> None:
        try:
            while True:
                self._pause()
                if self._stopping.is_set():
                    return
                self._work()
        except BaseException as error:
            self._error = error  # before the log: nobody is to wait for this thread meanwhile
            logger.exception("the thread that makes stores died")

    def _work(self) -> None:
        self._queue.work()
        self._queue.collect()

    def _pause(self) -> None:
        """Wait for a step, and until the engine has handed it out."""
        self._is_idle = True
        timeout_s = None
        if self._queue.has_work:
            self._is_idle, timeout_s = False, MAX_DELAY_S
        try:
            self._wakes.get(timeout=timeout_s)
            self._stopping.wait(HAND_OUT_S)
        except Empty:
            pass
        self._is_idle = False
        while not self._wakes.empty():
            self._wakes.get()

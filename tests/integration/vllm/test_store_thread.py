"""Stores on their way: what excludes what, that each order ends once, and that no thread's failure is lost.

Gates decide who runs when; the only times waited for are bounds.
"""

from __future__ import annotations

import os
import threading

import numpy as np
import pytest

from flexkv.common.hash_utils import root_key
from flexkv.common.request import KVResponseStatus as Status
from flexkv.errors import ServerError
from flexkv.integration.vllm.request_keys import RequestKeys
from flexkv.integration.vllm.request_state import FlexKVPutTask, RequestState
from flexkv.integration.vllm.scheduler_connector import FlexKVSchedulerConnector
from flexkv.integration.vllm.store_queue import MAX_BATCH_ORDERS, StoreQueue
from flexkv.integration.vllm.store_thread import StoreThread
from tests.integration.vllm.conftest import TOKENS_PER_BLOCK, FakeManager, FakeRequest, FakeScheduler

BOUND_S = 20.0


class WatchedLock:
    """Says when somebody waits for it."""

    def __init__(self):
        self._lock = threading.Lock()
        self.is_waited_for = threading.Event()
        self.locked, self.release = self._lock.locked, self._lock.release

    def acquire(self):
        if not self._lock.acquire(blocking=False):
            self.is_waited_for.set()
            assert self._lock.acquire(timeout=BOUND_S)


class GatedManager(FakeManager):
    """Says when a launch begins, and lets it go on when the test says so."""

    def __init__(self):
        super().__init__()
        self.launching = threading.Event()
        self.may_launch = threading.Event()
        self.may_launch.set()
        self.launched = threading.Semaphore(0)
        self.took = threading.Event()  # results
        self.error = None
        self.doomed = []
        self.cancelled = []
        self.is_launching = False

    def launch(self, *args, **kwargs):
        self.is_launching = True
        self.launching.set()
        assert self.may_launch.wait(BOUND_S)
        if self.error is not None:
            self.is_launching = False
            raise self.error
        answer = super().launch(*args, **kwargs)
        self.is_launching = False
        self.launched.release()
        return answer

    def cancel(self, task_ids):
        self.cancelled += task_ids
        super().cancel(task_ids)

    def doom(self, task_ids):
        assert not self.is_launching, "doomed amid a launch"
        self.doomed += task_ids
        super().doom(task_ids)

    def poll(self):
        results = super().poll()
        if results:
            self.took.set()
        return results


@pytest.fixture
def manager():
    return GatedManager()


@pytest.fixture
def queue(manager):
    return watched(StoreQueue(manager))


def watched(queue):
    queue._lock._lock = WatchedLock()
    return queue


def let_go_once_waited_for(manager, queue):
    """Let the launch go on as soon as somebody waits for it to end. Returns the thread that does."""

    def wait():
        was_waited_for.append(queue._lock._lock.is_waited_for.wait(BOUND_S))
        manager.may_launch.set()

    was_waited_for = []
    thread = threading.Thread(target=wait)
    thread.start()

    def check():
        thread.join(BOUND_S)
        assert was_waited_for == [True], "nobody waited for the launch"

    return check


@pytest.fixture
def thread(queue):
    thread = StoreThread(queue)
    yield thread
    thread.stop()
    assert not thread.thread.is_alive()


@pytest.fixture
def order():
    """Make an order of a request of its own: two blocks, of step 7."""
    numbers = iter(range(1, 1000))

    def make(step=7):
        number = next(numbers)
        request = FakeRequest(f"r{number}", 2 * TOKENS_PER_BLOCK, seed=number)
        keys = RequestKeys(root_key(b"model", None, 0, TOKENS_PER_BLOCK), TOKENS_PER_BLOCK, True)
        state = RequestState(request, keys)
        return FlexKVPutTask(state, keys.contents(request, 2), [10 * number, 10 * number + 1, 99], step)

    return make


def test_orders_are_launched_in_batches_after_their_last_step_and_end_once(manager, queue, order):
    orders = [order(step) for step in range(MAX_BATCH_ORDERS + 1)]
    for one in orders:
        queue.add(one)
    queue.work()
    assert [launch.after_step for launch in manager.launches] == [MAX_BATCH_ORDERS - 1] * MAX_BATCH_ORDERS + [
        MAX_BATCH_ORDERS
    ]
    assert [launch.blocks for launch in manager.launches] == [one.block_ids[:2] for one in orders]
    assert queue.take_ended() == []
    manager.end()
    queue.collect()
    assert queue.take_ended() == orders
    assert all(one.is_held for one in orders)
    assert not queue.has_work
    queue.collect()
    assert queue.take_ended() == []
    manager.is_working = True
    assert queue.has_work, "what was stored goes on to a slower tier"


def test_what_is_held_already_ends_without_a_launch(manager, queue, order):
    first = order()
    queue.add(first)
    queue.work()
    manager.end()
    queue.collect()
    again = FlexKVPutTask(first.state, first.contents, first.block_ids, 8)
    queue.add(again)
    queue.work()
    assert len(manager.launches) == 1
    assert queue.take_ended() == [first, again]
    assert again.is_held


def test_a_failed_store_ends_unheld(manager, queue, order):
    one = order()
    queue.add(one)
    queue.work()
    manager.end(Status.FAILED)
    queue.collect()
    assert queue.take_ended() == [one]
    assert not one.is_held


def test_an_order_doomed_before_its_turn_is_never_launched(manager, queue, order):
    doomed, other = order(), order()
    queue.add(doomed)
    queue.add(other)
    queue.doom([doomed])
    queue.work()
    assert [launch.blocks for launch in manager.launches] == [other.block_ids[:2]]
    assert queue.take_ended() == [doomed]
    assert manager.doomed == []


def test_a_doom_amid_a_launch_waits_for_it_and_dooms_what_it_launched(manager, queue, thread, order):
    one = order()
    manager.may_launch.clear()
    queue.add(one)
    thread.begin()
    assert manager.launching.wait(BOUND_S)
    dooming = threading.Thread(target=queue.doom, args=([one],))
    dooming.start()
    assert queue._lock._lock.is_waited_for.wait(BOUND_S)
    assert manager.doomed == []
    manager.may_launch.set()
    dooming.join(BOUND_S)
    assert not dooming.is_alive()
    assert manager.doomed == [one.task_id]
    manager.end()
    thread.begin()
    assert manager.took.wait(BOUND_S)
    thread.stop()
    assert queue.take_ended() == [one]
    assert not one.is_held
    assert manager.ready == set()


def test_dropped_orders_end_and_are_never_launched(manager, queue, order):
    orders = [order(), order()]
    for one in orders:
        queue.add(one)
    queue.drop()
    queue.work()
    assert manager.launches == []
    assert queue.take_ended() == orders
    assert not any(one.is_held for one in orders)


def test_results_of_other_tasks_are_handed_on(manager, queue, order):
    one = order()
    queue.add(one)
    queue.work()
    load, _ = manager._create("get", [b"key"], 0, 1)
    manager.launch([load], block_ids=[np.array([1], dtype=np.int64)], after_step=0)
    manager.end()
    queue.collect()
    assert [response.task_id for response in queue.take_other_results()] == [load]
    assert queue.take_ended() == [one]
    assert queue.take_other_results() == []


def test_a_step_has_the_thread_work_off_orders_and_later_take_their_results_without_one(manager, queue, thread, order):
    one = order()
    queue.add(one)
    thread.begin()
    assert manager.launched.acquire(timeout=BOUND_S)
    manager.end()
    assert manager.took.wait(BOUND_S)  # no step comes any more
    thread.stop()
    assert queue.take_ended() == [one]


def test_an_order_between_steps_wakes_an_idle_thread(manager, queue, thread, order):
    queue.add(order())
    thread.notice()
    assert manager.launched.acquire(timeout=BOUND_S)


def test_an_order_whose_prefix_somebody_writes_is_not_held(manager, queue, order):
    one = order()
    manager.unready.add(bytes(one.state.keys.sequence(one.contents).block_hashes[0]))
    queue.add(one)
    queue.work()
    manager.end()
    queue.collect()
    assert queue.take_ended() == [one]
    assert not one.is_held


def test_orders_are_kept_and_plans_cancelled_when_a_launch_raises(manager, queue, order):
    orders = [order() for _ in range(MAX_BATCH_ORDERS + 1)]
    for one in orders:
        queue.add(one)
    manager.error = OSError("no more")
    with pytest.raises(OSError, match="no more"):
        queue.work()
    assert len(manager.cancelled) == MAX_BATCH_ORDERS
    assert queue.has_work
    manager.error = None
    queue.work()
    manager.end()
    queue.collect()
    assert queue.take_ended() == orders
    assert all(one.is_held for one in orders)


def test_what_the_thread_dies_of_is_raised_until_it_is_heard(manager, queue, thread, order):
    thread.check()
    manager.error = OSError("no more")
    queue.add(order())
    thread.begin()
    thread.thread.join(BOUND_S)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="has died") as raised:
            thread.check()
        assert raised.value.__cause__ is manager.error


def test_keys_are_made_without_the_lock(manager, queue, order):
    one = order()
    make, were_locked = one.state.keys.sequence, []

    class Keys:
        def sequence(self, contents):
            were_locked.append(queue._lock._lock.locked())
            return make(contents)

    one.state.keys = Keys()
    queue.add(one)
    queue.work()
    assert were_locked == [False]
    assert len(manager.launches) == 1


def test_what_waits_at_a_stop_is_not_launched(manager, queue, order):
    thread = StoreThread(queue)
    queue.add(order())  # it has not been told
    thread.stop()
    thread.stop()
    assert not thread.thread.is_alive()
    thread.notice()
    assert manager.launches == []


def test_a_forked_child_gets_an_error_and_no_hang_of_a_lock_that_was_held(queue, thread, order):
    with queue._lock:
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                thread.stop()
                queue.doom([order()])
            except ServerError:
                code = 0
            finally:
                os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0


@pytest.fixture
def connector(manager):
    connector = FlexKVSchedulerConnector(manager, tokens_per_block=TOKENS_PER_BLOCK, own_thread=True)
    watched(connector._stores)
    yield connector
    connector.shutdown()


def test_a_finished_request_is_let_go_once_its_stores_have_ended(manager, connector):
    scheduler = FakeScheduler(connector)
    request = FakeRequest("a", 18)
    manager.may_launch.clear()
    scheduler.admit(request)
    scheduler.step()
    assert manager.launching.wait(BOUND_S)
    scheduler.finish(request)
    assert scheduler.held == {"a"}
    manager.may_launch.set()
    assert manager.launched.acquire(timeout=BOUND_S)
    manager.end()
    assert manager.took.wait(BOUND_S)
    connector._store_thread.stop()
    scheduler.step()
    assert scheduler.held == set()
    assert len(manager.ready) == 4
    assert len(connector._requests) == 0


def test_a_preemption_amid_a_launch_leaves_nothing_of_it_visible(manager, connector):
    scheduler = FakeScheduler(connector)
    request = FakeRequest("a", 18)
    manager.may_launch.clear()
    scheduler.admit(request)
    scheduler.step()
    assert manager.launching.wait(BOUND_S)
    scheduler.preempt(request)
    check = let_go_once_waited_for(manager, connector._stores)
    scheduler.step()
    check()
    assert len(manager.doomed) == 1
    manager.end()
    assert manager.ready == set()


def test_a_reset_drops_what_was_ordered_and_lets_the_request_go(manager, connector):
    scheduler = FakeScheduler(connector)
    request = FakeRequest("a", 18)
    manager.may_launch.clear()
    scheduler.admit(request)
    scheduler.step()
    assert manager.launching.wait(BOUND_S)
    other = FakeRequest("b", 18, seed=1)
    scheduler.admit(other)
    scheduler.step()
    check = let_go_once_waited_for(manager, connector._stores)
    connector.reset_cache()
    check()
    scheduler.finish(request)
    scheduler.finish(other)
    assert scheduler.held == set()
    manager.end()
    assert manager.ready == set()
    assert len(connector._requests) == 0


def test_a_dead_thread_is_heard_of_though_only_a_finished_request_waits(manager, connector):
    scheduler = FakeScheduler(connector)
    request = FakeRequest("a", 18)
    scheduler.admit(request)
    scheduler.step()
    assert manager.launched.acquire(timeout=BOUND_S)
    manager.error = OSError("no more")
    request.append(*range(4))
    request.num_computed_tokens = request.num_tokens
    scheduler._allocate(request, request.num_tokens)
    connector._requests["a"].block_ids = list(scheduler.tables["a"])
    assert scheduler.finish(request)
    connector._store_thread.thread.join(BOUND_S)
    with pytest.raises(RuntimeError, match="has died"):
        scheduler.step(come_back=False)
    with pytest.raises(RuntimeError, match="has died"):
        scheduler.come_back(scheduler.notice)
    manager.end()
    connector.shutdown()
    scheduler.connector = connector.turn_off(drained=True)
    scheduler.step()
    assert scheduler.held == set()


def test_a_shutdown_launches_nothing_more(manager, connector):
    scheduler = FakeScheduler(connector)
    manager.may_launch.clear()
    scheduler.admit(FakeRequest("a", 18))
    scheduler.step()
    assert manager.launching.wait(BOUND_S)
    scheduler.admit(FakeRequest("b", 18, seed=1))
    scheduler.step()
    check = let_go_once_waited_for(manager, connector._stores)
    connector.shutdown()
    check()
    assert len(manager.launches) == 1
    assert not connector._store_thread.thread.is_alive()

"""The connector against a scheduler that does what vLLM may do, in any order; transfers end or fail at any time.

FakeScheduler asserts that vLLM hears of each load and of each held request exactly once; here the device blocks are
watched: no transfer that counts ever touches a block that vLLM took back.
"""

from __future__ import annotations

import random

import pytest

from flexkv.common.request import KVResponseStatus
from flexkv.integration.vllm.layer_loads import LayerLoads
from tests.integration.vllm.conftest import FakeScheduler

NUM_EVENTS = 300


class Driver:
    """Draws events; `check` holds after each."""

    def __init__(self, scheduler, manager, make_request, seed):
        self.random = random.Random(seed)
        self.scheduler, self.manager, self.make_request = scheduler, manager, make_request
        self.waiting, self.running = {}, {}
        self.in_flight = []
        self.freed = set()
        self.count = 0
        self.manager.room = self.random.choice([None, None, 2])
        self.seen = set()

    def run(self):
        events = [self.add, self.schedule, self.schedule, self.preempt, self.finish, self.end_transfers, self.reset]
        weights = [3, 4, 4, 1, 1, 3, 0.1]
        for _ in range(NUM_EVENTS):
            (event,) = self.random.choices(events, weights)
            event()
            self.check()

    def add(self):
        self.count += 1
        request = self.make_request(f"r{self.count}", self.random.randint(1, 40), self.random.randint(0, 1))
        self.waiting[request.request_id] = request

    def schedule(self):
        """One step; vLLM admits nobody in a step that preempts."""
        preempts = bool(self.scheduler.preempted)
        for request in self.running.values():
            left = request.num_tokens - request.num_computed_tokens
            if left == 0:
                request.append(self.random.randint(5000, 5001))
            if self.random.random() < 0.9:
                self.scheduler.advance(request, min(self.random.randint(1, 9), left or 1))
        for request_id, request in [] if preempts else list(self.waiting.items()):
            if request_id in self.scheduler.loading or self.random.random() < 0.3:
                continue
            if self.random.random() < 0.1:  # asked, but there is no room for it
                self.scheduler.connector.get_num_new_matched_tokens(request, 0)
                continue
            if request.num_computed_tokens:
                self.scheduler.continue_loaded(request)
            elif self.scheduler.admit(request, chunk=self.random.choice([3, 8, 100])):
                self.seen.add("load")
                if request_id in self.scheduler.loading:
                    continue
            self.running[request_id] = self.waiting.pop(request_id)
        self.step(self.random.random() < 0.7)

    def step(self, come_back):
        self.scheduler.step(come_back=False)
        self.in_flight.append(self.scheduler.notice)
        while self.in_flight and (come_back or len(self.in_flight) > 2):
            self.take(self.in_flight.pop(0))

    def take(self, notice):
        held, loading = set(self.scheduler.held), set(self.scheduler.loading)
        self.scheduler.come_back(notice)
        for request_id in held - self.scheduler.held:
            self.free(request_id)
        for request_id in loading - self.scheduler.loading - held:
            self.check_load(request_id, notice)
            if notice.failed_block_ids.intersection(self.scheduler.tables[request_id]):  # vLLM starts it over
                self.waiting[request_id].num_computed_tokens = 0
                self.free(request_id)
                self.seen.add("failed load")

    def check_load(self, request_id, notice):
        """Whether a failed load was reported block by block, in the output that ends it."""
        table = set(self.scheduler.tables[request_id])
        for task in self.manager.tasks.values():
            if task.kind == "get" and task.block_ids and table.issuperset(task.block_ids):
                failed = task.status is not KVResponseStatus.SUCCESS
                assert notice.failed_block_ids.issuperset(task.block_ids) is failed

    def preempt(self):
        if not self.running:
            return
        request_id = self.random.choice(list(self.running))
        request = self.waiting[request_id] = self.running.pop(request_id)
        if any(task.state == "running" and task.kind == "put" for task in self.manager.tasks.values()):
            self.seen.add("preempted while storing")
        self.freed.update(self.scheduler.tables[request_id])
        self.scheduler.preempt(request)

    def finish(self):
        """A request ends or is aborted."""
        if not (self.running or self.waiting):
            return
        request_id = self.random.choice([*self.running, *self.waiting])
        if request_id in self.scheduler.loading:
            self.seen.add("aborted load")
        request = self.running.pop(request_id, None) or self.waiting.pop(request_id)
        if not self.scheduler.finish(request):
            self.free(request_id)

    def free(self, request_id):
        self.freed.update(self.scheduler.tables.pop(request_id, []))

    def end_transfers(self):
        status = self.random.choice([KVResponseStatus.SUCCESS] * 3 + [KVResponseStatus.FAILED])
        self.manager.end(status, self.random.choice(["get", "put"]))

    def reset(self):
        assert self.scheduler.connector.reset_cache()

    def check(self):
        if self.scheduler.preempted:
            return  # nothing overwrites the freed blocks before the next step is sent out
        for task in self.manager.tasks.values():
            if task.state == "running" and not task.doomed:
                assert not self.freed.intersection(task.block_ids)

    def wind_up(self):
        for request_id in [*self.running, *self.waiting]:
            request = self.running.pop(request_id, None) or self.waiting.pop(request_id)
            if not self.scheduler.finish(request):
                self.free(request_id)
        for _ in range(4):
            self.step(come_back=True)
            self.manager.end()
        self.step(come_back=True)


class LayerDriver(Driver):
    """Loads go by layers where they can, and some are lost: no block that was computed on one is ever stored.

    `recomputes`: vLLM's policy. If so a step comes back before the next one is planned (roles.py).
    """

    def __init__(self, *args, recomputes):
        super().__init__(*args)
        self.recomputes = recomputes
        self.lost = {}  # by request: its life, told by the first block of its table
        self.wrong = set()  # device blocks; no two lives have one in common

    def step(self, come_back):
        super().step(come_back or self.recomputes)

    def take(self, notice):
        for task in self.manager.tasks.values():
            if task.kind != "get" or not task.block_ids or not notice.layer_load.issuperset(task.block_ids):
                continue
            self.seen.add("load by layers")
            task.is_copied = True
            is_lost = self.random.random() < 0.3 if task.state == "running" else task.status.name != "SUCCESS"
            self.scheduler.lost = set(task.block_ids) if is_lost else set()
            self.lose(task.block_ids)
        super().take(notice)
        self.scheduler.lost = set()

    def preempt(self):
        running = dict(self.running)
        super().preempt()
        for name in running.keys() - self.running.keys():
            for task in self.manager.tasks.values():  # what comes after the step waits for its load
                if task.kind == "get" and task.block_ids and self.freed.issuperset(task.block_ids):
                    task.is_copied = True
            self.lost.pop(name, None)

    def lose(self, block_ids):
        """As vLLM does before the connector is told of the output."""
        owner = next((name for name in self.running if block_ids[0] in self.scheduler.tables[name]), None)
        if not self.scheduler.lost or owner is None:
            return
        table = self.scheduler.tables[owner]
        self.lost[owner] = table[0]
        self.note_wrong()
        if self.recomputes:
            self.running[owner].num_computed_tokens = 4 * table.index(block_ids[0])
            self.seen.add("recomputed")
        else:
            self.seen.add("failed")
            if not self.scheduler.finish(self.running.pop(owner)):
                self.free(owner)

    def note_wrong(self):
        for name, first in self.lost.items():
            table = self.scheduler.tables.get(name)
            self.wrong.update(table if table and table[0] == first else ())

    def check(self):
        self.note_wrong()
        stored = {block for blocks, _ in self.manager.launched("put") for block in blocks}
        assert not stored.intersection(self.wrong)
        if self.scheduler.preempted:
            return
        for task in self.manager.tasks.values():
            if task.state == "running" and not task.doomed and not hasattr(task, "is_copied"):
                assert not self.freed.intersection(task.block_ids)


def check_all_is_wound_up(driver):
    scheduler, manager = driver.scheduler, driver.manager
    driver.wind_up()
    assert not scheduler.held
    assert not scheduler.loading
    assert not scheduler.notice.outstanding
    assert manager.states() <= {"ended"}
    assert len(scheduler.connector._requests) == 0


@pytest.mark.parametrize("seed", range(20))
def test_any_order_of_events_keeps_every_promise(scheduler, manager, make_request, seed):
    driver = Driver(scheduler, manager, make_request, seed)
    driver.run()
    check_all_is_wound_up(driver)
    assert {"load", "preempted while storing"} <= driver.seen, "the driver did too little"


@pytest.mark.parametrize("recomputes", [False, True])
@pytest.mark.parametrize("seed", range(10))
def test_any_order_of_events_keeps_every_promise_of_loads_by_layers(
    make_connector, manager, make_request, monkeypatch, seed, recomputes
):
    scheduler = FakeScheduler(make_connector(by_layers=True))
    monkeypatch.setattr(LayerLoads, "_is_alive", lambda loads, request_id: False)  # also while others run
    driver = LayerDriver(scheduler, manager, make_request, seed, recomputes=recomputes)
    driver.run()
    check_all_is_wound_up(driver)
    assert not scheduler.connector._layer_loads.is_open
    assert {"load by layers", "recomputed" if recomputes else "failed"} <= driver.seen, "the driver did too little"

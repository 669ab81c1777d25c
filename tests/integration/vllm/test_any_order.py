"""The connector against a scheduler that does what vLLM may do, in any order; transfers end or fail at any time.

FakeScheduler asserts that vLLM hears of each load and of each held request exactly once; here the device blocks are
watched: no transfer that counts ever touches a block that vLLM took back.
"""

from __future__ import annotations

import random

import pytest

from flexkv.common.request import KVResponseStatus

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


@pytest.mark.parametrize("seed", range(20))
def test_any_order_of_events_keeps_every_promise(scheduler, manager, make_request, seed):
    driver = Driver(scheduler, manager, make_request, seed)
    driver.run()
    driver.wind_up()
    assert not scheduler.held
    assert not scheduler.loading
    assert not scheduler.notice.outstanding
    assert manager.states() <= {"ended"}
    assert len(scheduler.connector._requests) == 0
    assert {"load", "preempted while storing"} <= driver.seen, "the driver did too little"

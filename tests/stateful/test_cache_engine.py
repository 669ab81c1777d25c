"""The cache engine against simulated host memory: a load always reads exactly what was stored for its prefix.

Memory is a dict from slot to the chain whose bytes lie there. Stores write when they are committed, and doomed or
quarantined ones scribble until the moment they are aborted, as a late DMA does. Teardown ends all reservations: then
nothing is pinned, doomed or lost. A router that hears the KV events knows of every block that can be loaded, and of
no other one when nothing is held.
"""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from flexkv.cache.cache_engine import GlobalCacheEngine
from flexkv.cache.radixtree import NEVER_S, EntryMeta
from flexkv.cache.reservation import GetReservation, PutReservation, Reservation, ReservationState
from flexkv.common.block import SequenceMeta
from flexkv.common.config import CacheConfig, ModelConfig
from flexkv.common.events import BlocksRemoved, BlocksStored, KVEvent
from tests.stateful.campaigns import every_run, long_campaign

CAPACITY = 12
MODEL = ModelConfig(num_layers=1, num_kv_heads=1, head_size=8)
CONFIG = CacheConfig(tokens_per_block=2, num_cpu_blocks=CAPACITY, evict_ratio=0.0)
CHAINS = st.lists(st.integers(0, 2), min_size=0, max_size=7)
SCRIBBLE = ("scribble",)


def sequence_of(chain: list[int]) -> SequenceMeta:
    return SequenceMeta(np.repeat(np.array(chain, dtype=np.int64), 2), 2)


class Router:
    """Knows the blocks it was told of."""

    def __init__(self) -> None:
        self.keys: set[bytes] = set()

    def publish(self, event: KVEvent) -> None:
        if isinstance(event, BlocksStored):
            self.keys.update(key.tobytes() for key in event.keys)
        elif isinstance(event, BlocksRemoved):
            self.keys.difference_update(key.tobytes() for key in event.keys)
        else:
            self.keys.clear()


class CacheEngineMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.router = Router()
        self.cache = GlobalCacheEngine(CONFIG, MODEL, available=8, collector=self.router)
        self.stored_keys: set[bytes] = set()
        self.memory: dict[int, tuple[object, ...]] = {}
        self.live: list[tuple[Reservation, list[int]]] = []
        self.now_s = 0

    def check_bytes(self, get: GetReservation, chain: list[int]) -> None:
        for block, slot in enumerate(get.slots.tolist(), get.span.start):
            assert self.memory.get(slot) == tuple(chain[: block + 1]), "a load would read other bytes"

    @rule(chain=CHAINS, start=st.integers(0, 3))
    def prepare_get(self, chain: list[int], start: int) -> None:
        get = self.cache.prepare_get(sequence_of(chain), start, now_s=self.now_s)
        assert get.span.start == start
        assert start + get.num_blocks <= max(start, len(chain))
        self.check_bytes(get, chain)
        self.live.append((get, chain))

    @rule(chain=CHAINS, ttl_s=st.sampled_from([None, 1, 3]), priority=st.integers(0, 2))
    def prepare_put(self, chain: list[int], ttl_s: int | None, priority: int) -> None:
        sequence = sequence_of(chain)
        held = self.cache.match_all(sequence, self.now_s)[0].num_visible
        free = self.cache.cpu_cache_engine.mempool.num_free_blocks
        expiry_s = NEVER_S if ttl_s is None else self.now_s + ttl_s
        put = self.cache.prepare_put(sequence, meta=EntryMeta(priority=priority, expiry_s=expiry_s), now_s=self.now_s)
        assert put.span.start == held
        assert put.num_blocks + put.num_skipped == len(chain) - held
        assert put.num_blocks >= min(free, len(chain) - held)
        self.stored_keys.update(key.tobytes() for key in sequence.block_hashes)
        writing = {slot for other, _ in self.live if isinstance(other, PutReservation) for slot in other.slots.tolist()}
        assert not writing & set(put.slots.tolist()), "two stores write one slot"
        self.live.append((put, chain))

    @precondition(lambda self: self.live)
    @rule(data=st.data(), is_store=st.booleans())
    def prepare_the_same_again(self, data: st.DataObject, is_store: bool) -> None:
        _, chain = data.draw(st.sampled_from(self.live))
        if is_store:
            self.prepare_put(chain=chain, ttl_s=None, priority=0)
        else:
            self.prepare_get(chain=chain, start=0)

    @precondition(lambda self: self.live)
    @rule(data=st.data())
    def commit(self, data: st.DataObject) -> None:
        index = data.draw(st.integers(0, len(self.live) - 1))
        reservation, chain = self.live[index]
        if reservation.state is not ReservationState.PREPARED:
            return
        del self.live[index]
        if isinstance(reservation, GetReservation):
            self.check_bytes(reservation, chain)
        else:
            for block, slot in enumerate(reservation.slots.tolist(), reservation.span.start):
                self.memory[slot] = tuple(chain[: block + 1])
        reservation.commit()

    @precondition(lambda self: self.live)
    @rule(data=st.data())
    def abort(self, data: st.DataObject) -> None:
        self.end(data.draw(st.integers(0, len(self.live) - 1)))

    def end(self, index: int) -> None:
        reservation, chain = self.live.pop(index)
        if isinstance(reservation, GetReservation):
            self.check_bytes(reservation, chain)
        else:
            self.memory.update(dict.fromkeys(reservation.slots.tolist(), SCRIBBLE))
        reservation.abort()

    @precondition(lambda self: self.live)
    @rule(data=st.data(), quarantine=st.booleans())
    def doom(self, data: st.DataObject, quarantine: bool) -> None:
        reservation, _ = data.draw(st.sampled_from(self.live))
        if reservation.state is ReservationState.QUARANTINED:
            return
        if quarantine:
            reservation.quarantine()
        else:
            reservation.doom()
        if isinstance(reservation, PutReservation):
            self.memory.update(dict.fromkeys(reservation.slots.tolist(), SCRIBBLE))

    @precondition(lambda self: any(chain for _, chain in self.live))
    @rule(data=st.data())
    def a_block_is_found_bad(self, data: st.DataObject) -> None:
        chain = data.draw(st.sampled_from([chain for _, chain in self.live if chain]))
        key = sequence_of(chain).block_hashes[data.draw(st.integers(0, len(chain) - 1))]
        slot = self.cache.cpu_cache_engine.index.find(key.tobytes())
        if slot is not None:
            self.cache.cpu_cache_engine.drop(key, slot)

    @rule()
    def reset(self) -> None:
        self.cache.reset()
        assert self.cache.cpu_cache_engine.index.num_blocks == 0

    @rule(seconds=st.integers(1, 3))
    def time_passes(self, seconds: int) -> None:
        self.now_s += seconds

    @rule()
    def more_slots(self) -> None:
        self.cache.cpu_cache_engine.set_available(CAPACITY)

    @invariant()
    def everything_adds_up(self) -> None:
        self.cache.check_invariants()
        assert self.cache.num_live_reservations == len(self.live)

    @invariant()
    def the_router_knows_what_can_be_loaded(self) -> None:
        index = self.cache.cpu_cache_engine.index
        slots = {key: index.find(key) for key in self.stored_keys}
        ready = {key for key, slot in slots.items() if slot is not None and index.is_ready(slot)}
        assert ready <= self.router.keys
        assert self.live or ready == self.router.keys

    def teardown(self) -> None:
        while self.live:
            self.end(0)
        self.cache.check_invariants()
        self.the_router_knows_what_can_be_loaded()
        tier = self.cache.cpu_cache_engine
        assert tier.index.num_pinned == tier.index.num_doomed == tier.index.num_unready == 0
        assert self.cache.num_quarantined_blocks == tier.mempool.num_quarantined_blocks == tier.num_reserved == 0
        self.cache.reset()
        assert tier.mempool.num_free_blocks == tier.mempool.num_available_blocks


TestCacheEngine = every_run(CacheEngineMachine, 80)
test_a_long_campaign = long_campaign(CacheEngineMachine, 3000)

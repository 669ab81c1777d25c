"""RingBuffer: the newest items, in order, and nothing forgotten uncounted."""

from __future__ import annotations

from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flexkv.common.ring_buffer import RingBuffer


@given(capacity=st.integers(1, 5), actions=st.lists(st.sampled_from(["append", "append", "append", "take", "clear"])))
def test_it_behaves_as_a_bounded_queue(capacity: int, actions: list[str]) -> None:
    ring: RingBuffer[int] = RingBuffer(capacity)
    model: deque[int] = deque(maxlen=capacity)
    overwritten = 0
    for number, action in enumerate(actions):
        if action == "append":
            overwritten += len(model) == capacity
            ring.append(number)
            model.append(number)
        elif action == "clear":
            ring.clear()
            model.clear()
        elif model:
            assert ring.take() == model.popleft()
        assert list(ring) == list(model)
        assert (len(ring), ring.is_full, ring.num_overwritten) == (len(model), len(model) == capacity, overwritten)
        if model:
            assert (ring[0], ring[-1]) == (model[0], model[-1])
    assert ring.capacity == capacity


def test_an_empty_ring_has_nothing_to_give() -> None:
    ring: RingBuffer[str] = RingBuffer(2)
    with pytest.raises(IndexError):
        ring.take()
    ring.append("a")
    for index in (1, -2):
        with pytest.raises(IndexError, match="the ring holds 1 items"):
            ring[index]


@pytest.mark.parametrize("capacity", [0, -1, True, 1.5])
def test_a_ring_needs_room(capacity: int) -> None:
    with pytest.raises(ValueError, match="capacity"):
        RingBuffer(capacity)


def test_taken_items_are_not_kept_alive() -> None:
    class Item:
        alive = 0

        def __init__(self) -> None:
            Item.alive += 1

        def __del__(self) -> None:
            Item.alive -= 1

    ring: RingBuffer[Item] = RingBuffer(2)
    for _ in range(5):
        ring.append(Item())
    assert Item.alive == 2
    ring.clear()
    assert Item.alive == 0

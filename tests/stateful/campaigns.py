"""How a state machine is run: a few histories in every run of the tests, many longer ones in a long campaign."""

from __future__ import annotations

import unittest
from collections.abc import Callable

import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test


def every_run(machine: type[RuleBasedStateMachine], max_examples: int, num_steps: int = 50) -> type[unittest.TestCase]:
    """Return the test of every run, to be bound to a name that starts with Test."""
    machine.TestCase.settings = settings(max_examples=max_examples, stateful_step_count=num_steps)
    return machine.TestCase


def long_campaign(machine: type[RuleBasedStateMachine], max_examples: int) -> Callable[[], None]:
    """Return the test of `make test-long`, to be bound to a name that starts with test."""

    @pytest.mark.long
    @pytest.mark.timeout(1800)
    def test() -> None:
        long = settings(max_examples=max_examples, stateful_step_count=80)
        run_state_machine_as_test(machine, settings=long)

    return test

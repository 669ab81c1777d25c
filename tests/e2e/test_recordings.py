"""The recordings that tests replay without vLLM are what this vLLM does: made anew, they are followed call by call."""

from __future__ import annotations

import pytest

from tests.replay.record import NAMES, SETTINGS, TRANSFER, record
from tests.replay.recorder import DIRECTORY
from tests.replay.script import check_conforms

pytestmark = pytest.mark.vllm


@pytest.mark.parametrize("name", ["uni", "uni-async"])
def test_the_scheduler_of_the_replay_follows_this_vllm_call_by_call(name, make_engine, prompt, tmp_path, monkeypatch):
    monkeypatch.setenv(DIRECTORY, str(tmp_path))
    engine = make_engine("llama", TRANSFER, **SETTINGS, **NAMES[name])
    recording = record(engine, prompt, tmp_path, name)
    assert any(call[0] == "alloc" and call[3] for call in recording.calls), "nothing was loaded"
    check_conforms(recording)

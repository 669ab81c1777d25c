"""Tasks: what the KVTaskEngine is made of, below its verbs.

Records and their states, what happens to them, checks of arguments, bring-up of the host tier, counters, and where
callers wait.
"""

from __future__ import annotations

from flexkv.tasks.recorder import EventBuffer
from flexkv.tasks.task import KVTask, KVTaskManager, TaskStatus

__all__ = ["EventBuffer", "KVTask", "KVTaskManager", "TaskStatus"]

"""KVManager: the one object an integration holds. Its verbs are the KVTaskEngine's, in the same process.

Thread safety: all methods, any thread. Nothing waits without a bound; `start` does not block.

    manager = KVManager(model_config, cache_config)
    manager.start()                                       # ranks register with KVTPClient(manager.gpu_register_port)
    task_id, mask = manager.get_match(token_ids)          # True = tokens that can be loaded
    manager.launch(task_id, [slots_of(mask)])             # or manager.cancel(task_id)
    manager.wait(task_id)[task_id].status                 # KVResponseStatus.SUCCESS
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Concatenate, Generic, ParamSpec, TypeVar, overload

from flexkv.common.address import own_socket, register_address
from flexkv.common.config import CacheConfig, ModelConfig
from flexkv.common.events import EventCollector
from flexkv.errors import ConfigError
from flexkv.kvtask import EventBuffer, KVTaskEngine

__all__ = ["EventBuffer", "KVManager"]

P = ParamSpec("P")
R = TypeVar("R")


class _Forward(Generic[P, R]):
    """A method that is one of the engine's verbs: an instance looks it up once and has the engine's own from then on.

    Of the class it is a function like any other, with the verb's signature and docstring.
    """

    def __init__(self, verb: Callable[Concatenate[KVTaskEngine, P], R]) -> None:
        self._name = name = verb.__name__

        @wraps(verb)
        def method(self: KVManager, /, *args: P.args, **kwargs: P.kwargs) -> R:
            answer: R = getattr(self._engine, name)(*args, **kwargs)
            return answer

        method.__module__, method.__qualname__ = __name__, f"KVManager.{name}"
        self._method: Callable[Concatenate[KVManager, P], R] = method

    @overload
    def __get__(self, manager: None, owner: type[KVManager]) -> Callable[Concatenate[KVManager, P], R]: ...
    @overload
    def __get__(self, manager: KVManager, owner: type[KVManager]) -> Callable[P, R]: ...
    def __get__(self, manager: KVManager | None, owner: type[KVManager]) -> Callable[..., R]:
        if manager is None:
            return self._method
        verb: Callable[P, R] = getattr(manager._engine, self._name)
        manager.__dict__[self._name] = verb
        return verb


class KVManager:
    """What an engine asks its KV cache.

    Args:
        dp_client_id: number of this engine; 0, since one cache serves one engine in this version.
        server_recv_port: address of the service, ``ipc:///path`` or a path; names `gpu_register_port`. Default: one of
            this process's own.
        gpu_register_port: address on which GPU ranks register; default: server_recv_port + ``_gpu_register``.
        event_collector: takes KV events under the task engine's lock; an EventBuffer is emptied by `take_events`.

    Raises:
        ConfigError: naming the setting.
    """

    def __init__(
        self,
        model_config: ModelConfig,
        cache_config: CacheConfig,
        dp_client_id: int = 0,
        server_recv_port: str = "",
        gpu_register_port: str = "",
        event_collector: EventCollector | None = None,
    ) -> None:
        if dp_client_id != 0:
            message = f"dp_client_id is {dp_client_id!r}; one cache serves one engine in this version, use 0"
            raise ConfigError(message, key="dp_client_id", value=dp_client_id)
        self.server_recv_port = server_recv_port or own_socket()
        self.gpu_register_port = gpu_register_port or register_address(self.server_recv_port)
        self._engine = KVTaskEngine(model_config, cache_config, self.gpu_register_port, event_collector=event_collector)

    @property
    def model_config(self) -> ModelConfig:
        """The model's shape."""
        return self._engine.model_config

    @property
    def cache_config(self) -> CacheConfig:
        """What is kept, and where."""
        return self._engine.cache_config

    @property
    def num_running(self) -> int:
        """Tasks that are launched and have not ended."""
        return self._engine.num_running

    @property
    def is_working(self) -> bool:
        """Whether blocks go from tier to tier, or are to: `poll` now and then, though no task runs."""
        return self._engine.is_working

    start = _Forward(KVTaskEngine.start)
    is_ready = _Forward(KVTaskEngine.is_ready)
    wait_ready = _Forward(KVTaskEngine.wait_ready)
    shutdown = _Forward(KVTaskEngine.shutdown)

    sequence = _Forward(KVTaskEngine.sequence)
    get_match = _Forward(KVTaskEngine.get_match)
    put_match = _Forward(KVTaskEngine.put_match)
    get_span = _Forward(KVTaskEngine.get_span)
    staging = _Forward(KVTaskEngine.staging)
    note_prefill = _Forward(KVTaskEngine.note_prefill)
    misses = _Forward(KVTaskEngine.misses)
    put_span = _Forward(KVTaskEngine.put_span)
    get_async = _Forward(KVTaskEngine.get_async)
    put_async = _Forward(KVTaskEngine.put_async)
    prefetch_async = _Forward(KVTaskEngine.prefetch_async)

    launch = _Forward(KVTaskEngine.launch)
    cancel = _Forward(KVTaskEngine.cancel)
    doom = _Forward(KVTaskEngine.doom)
    wait = _Forward(KVTaskEngine.wait)
    try_wait = _Forward(KVTaskEngine.try_wait)
    poll = _Forward(KVTaskEngine.poll)
    wait_any = _Forward(KVTaskEngine.wait_any)
    reset = _Forward(KVTaskEngine.reset)

    stats = _Forward(KVTaskEngine.stats)
    take_events = _Forward(KVTaskEngine.take_events)
    check_invariants = _Forward(KVTaskEngine.check_invariants)

"""CostModel: is it worth loading what a slow tier holds of a prompt, or does the GPU compute it sooner (D11)?

Loading n blocks takes  latency + queued bytes / rate + n * block bytes * (the sum of 1 / rate over the routes),
computing them          n * tokens per block / prefill rate.

All or nothing. Blocks are loaded from the start of what is missing, so a part of them would be the first k, and the
rest of the n would be computed: with L the part of loading that does not grow with k, a and c the seconds that a block
takes to load and to compute, that is  L + k * a + (n - k) * c  for k >= 1, and  n * c  for k = 0. From 1 on it is
linear in k: it is least at k = n where a < c, else at k = 1, and there it is no less than n * c, as L >= 0 and a >= c.
So no part can beat both all and nothing, and these two are all there is to compare. (Prefill is taken as linear too. In
truth a block costs the more the later it stands in a prompt, by attention; what is measured is the mean.)

Rates are measured: sum of amounts over sum of seconds, of which an amount that lies `memory` behind counts half; so a
long copy counts for more than a short one, and a rate lies between the lowest and the highest that was seen. A tier
that is never loaded from is never measured again, so one slow minute would turn it off for good: after `probe_after_s`
without a sample a few blocks are loaded all the same.

Pure: no I/O, no clock of its own. Thread safety: none; the owner holds a lock.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from flexkv.common.checks import as_config_int, as_int
from flexkv.common.transfer import TransferType
from flexkv.errors import ConfigError

__all__ = ["CostEstimates", "CostModel", "LoadDecision", "LoadReason", "RateEstimate"]

PROBE_BLOCKS = 16
DISK_LOAD = (TransferType.DISK2H, TransferType.H2D)
_MEMORY_BYTES = 4 << 30
_MEMORY_TOKENS = 256 << 10


class LoadReason(Enum):
    """Why a load was decided for or against."""

    WORTH_IT = "worth_it"  # load all: sooner here than computed
    NO_ESTIMATE = "no_estimate"  # load all: prefill or a route has not been measured, and loading mostly wins
    PROBE = "probe"  # load a few, to measure a route again that looked too slow for long
    SLOWER_THAN_COMPUTE = "slower_than_compute"  # load nothing
    TOO_FEW = "too_few"  # load nothing: less than the smallest load that is worth the detour


@dataclass(frozen=True, slots=True)
class LoadDecision:
    """How many blocks to load, from the first one on; and what all that were asked about would take.

    `load_s`, `compute_s`: None where nothing was measured.
    """

    num_blocks: int
    load_s: float | None
    compute_s: float | None
    reason: LoadReason


@dataclass(frozen=True, slots=True)
class RateEstimate:
    """A rate as it is believed now. `num_samples` is 0, and `updated_s` None, while it is a start value."""

    per_s: float
    num_samples: int = 0
    updated_s: float | None = None


@dataclass(frozen=True, slots=True)
class CostEstimates:
    """All rates there are. `routes`: bytes per second. `prefill`: tokens per second, None before the first sample."""

    routes: Mapping[TransferType, RateEstimate]
    prefill: RateEstimate | None


class _Rate:
    """An amount per second, decaying with the amounts that come after."""

    def __init__(self, memory: float, start_per_s: float | None = None) -> None:
        self._memory = memory
        # A start value counts like a sample of `memory`.
        self._amount = memory if start_per_s else 0.0
        self._seconds = memory / start_per_s if start_per_s else 0.0
        self._num_samples = 0
        self._updated_s: float | None = None

    def add(self, amount: int, seconds: float, now_s: float) -> None:
        kept = 0.5 ** (amount / self._memory)
        self._amount = self._amount * kept + amount
        self._seconds = self._seconds * kept + seconds
        self._num_samples += 1
        self._updated_s = now_s

    @property
    def updated_s(self) -> float | None:
        return self._updated_s

    @property
    def per_s(self) -> float | None:
        return self._amount / self._seconds if self._seconds > 0 else None

    def estimate(self) -> RateEstimate | None:
        per_s = self.per_s
        return None if per_s is None else RateEstimate(per_s, self._num_samples, self._updated_s)


class CostModel:
    """Keeps the rates, and decides by them.

    Args:
        start_bytes_per_s: rates of routes before they were measured; a route without one has no estimate until then.
        latency_s: what any load from a slow tier takes beside its bytes: first byte, and the engine asking again.
        min_blocks: fewer are not worth a load that the engine has to wait and ask again for. At least 1.
        probe_after_s: a route without a sample for so long is tried again with a few blocks.
        memory_bytes, memory_tokens: what lies so far behind counts half.

    Raises:
        ConfigError: naming the argument.
    """

    def __init__(
        self,
        *,
        start_bytes_per_s: Mapping[TransferType, float] | None = None,
        latency_s: float = 0.0,
        min_blocks: int = 1,
        probe_after_s: float = 10.0,
        memory_bytes: int = _MEMORY_BYTES,
        memory_tokens: int = _MEMORY_TOKENS,
    ) -> None:
        self._latency_s = _as_config_number("latency_s", latency_s)
        self._min_blocks = as_config_int("min_blocks", min_blocks)
        self._probe_after_s = _as_config_number("probe_after_s", probe_after_s)
        self._memory_bytes = as_config_int("memory_bytes", memory_bytes)
        self._prefill = _Rate(as_config_int("memory_tokens", memory_tokens))
        self._routes: dict[TransferType, _Rate] = {}
        for route, per_s in (start_bytes_per_s or {}).items():
            value = _as_config_number(f"start_bytes_per_s[{route.name}]", per_s, is_zero_allowed=False)
            self._routes[route] = _Rate(self._memory_bytes, value)
        self._probed_s: dict[TransferType, float] = {}

    def transferred(self, route: TransferType, num_bytes: int, seconds: float, now_s: float) -> None:
        """Take a copy as a sample: `seconds` is what its bytes took, without the wait before them.

        Nothing moved, or no time that the clock could tell, is no sample. Raises ValueError on a negative number.
        """
        if _is_sample("num_bytes", num_bytes, seconds):
            self._routes.setdefault(route, _Rate(self._memory_bytes)).add(num_bytes, seconds, now_s)

    def prefilled(self, num_tokens: int, seconds: float, now_s: float) -> None:
        """Take `num_tokens` that the engine has computed in `seconds` as a sample. Like `transferred`."""
        if _is_sample("num_tokens", num_tokens, seconds):
            self._prefill.add(num_tokens, seconds, now_s)

    def rate_of(self, route: TransferType) -> float | None:
        """Return the bytes per second of a route; None before it was measured."""
        rate = self._routes.get(route)
        return None if rate is None else rate.per_s

    def estimates(self) -> CostEstimates:
        """Return a snapshot of all rates."""
        known = {route: rate.estimate() for route, rate in sorted(self._routes.items())}
        routes = {route: estimate for route, estimate in known.items() if estimate is not None}
        return CostEstimates(routes, self._prefill.estimate())

    def decide(
        self,
        num_blocks: int,
        block_bytes: int,
        tokens_per_block: int,
        queued_bytes: int = 0,
        *,
        num_saved: int | None = None,
        may_probe: bool = True,
        now_s: float,
        routes: Sequence[TransferType] = DISK_LOAD,
    ) -> LoadDecision:
        """Decide how many of `num_blocks` blocks, the next ones of a prompt, to load along `routes`.

        `num_saved`: of these blocks, how many would have to be computed; all when None. `queued_bytes`: what waits in
        the queue of the first route, the slow one, and comes before. `may_probe`: whether a few may be loaded so that a
        route is measured again; a probe is noted as made. The blocks go along the routes one after the other: what was
        read is checked before it goes on.

        Raises:
            ValueError: naming the argument.
        """
        as_int("num_blocks", num_blocks)
        as_int("block_bytes", block_bytes, 1)
        as_int("tokens_per_block", tokens_per_block, 1)
        as_int("queued_bytes", queued_bytes)
        if not routes:
            raise ValueError("routes is empty; name the routes that a load takes")
        load_s = self._load_s(num_blocks * block_bytes, queued_bytes, routes)
        prefill = self._prefill.per_s
        saved = num_blocks if num_saved is None else as_int("num_saved", num_saved, 0, num_blocks)
        compute_s = None if prefill is None else saved * tokens_per_block / prefill
        if num_blocks < self._min_blocks:
            return LoadDecision(0, load_s, compute_s, LoadReason.TOO_FEW)
        if load_s is None or compute_s is None:
            return LoadDecision(num_blocks, load_s, compute_s, LoadReason.NO_ESTIMATE)
        if load_s < compute_s:
            return LoadDecision(num_blocks, load_s, compute_s, LoadReason.WORTH_IT)
        if may_probe and self._takes_probe(routes[0], now_s):
            return LoadDecision(min(num_blocks, PROBE_BLOCKS), load_s, compute_s, LoadReason.PROBE)
        return LoadDecision(0, load_s, compute_s, LoadReason.SLOWER_THAN_COMPUTE)

    def _load_s(self, num_bytes: int, queued_bytes: int, routes: Sequence[TransferType]) -> float | None:
        total_s = self._latency_s
        waiting_bytes = queued_bytes
        for route in routes:
            rate = self._routes.get(route)
            per_s = None if rate is None else rate.per_s
            if per_s is None:
                return None
            total_s += (waiting_bytes + num_bytes) / per_s
            waiting_bytes = 0
        return total_s

    def _takes_probe(self, route: TransferType, now_s: float) -> bool:
        """Return whether the route has neither a sample nor a probe of late; the first question only starts the time.

        One probe at a time: the next has to wait as long again, whether or not this one brings a sample.
        """
        updated_s = self._routes[route].updated_s
        probed_s = self._probed_s.setdefault(route, now_s if updated_s is None else updated_s)
        last_s = probed_s if updated_s is None else max(probed_s, updated_s)
        if now_s - last_s < self._probe_after_s:
            return False
        self._probed_s[route] = now_s
        return True


def _is_sample(name: str, amount: int, seconds: float) -> bool:
    as_int(name, amount)
    if not 0 <= seconds < math.inf:
        raise ValueError(f"seconds is {seconds!r}; it must be a number of at least 0")
    return amount > 0 and seconds > 0


def _as_config_number(key: str, value: float, *, is_zero_allowed: bool = True) -> float:
    if not 0 <= value < math.inf or (value == 0 and not is_zero_allowed):
        least = "of at least 0" if is_zero_allowed else "above 0"
        raise ConfigError(f"{key} is {value!r}; it must be a number {least}", key=key, value=value)
    return float(value)

"""TenantNumbers: tenants are given by name or by number, and a number stands for one of them only. Thread-safe."""

from __future__ import annotations

import threading

__all__ = ["MAX_TENANTS", "TenantNumbers"]

MAX_TENANTS = 65535


class TenantNumbers:
    """Names get the highest number that nobody has, MAX_TENANTS first."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._names: dict[int, str | None] = {}  # None: given as a number
        self._next = MAX_TENANTS
        self._lock = threading.Lock()

    def of_name(self, name: str) -> int:
        """Return the number of a name. Raises ValueError when no number is left."""
        with self._lock:
            number = self._numbers.get(name)
            if number is None:
                while self._next in self._names:
                    self._next -= 1
                if self._next == 0:  # 0 stands for no tenant
                    raise ValueError(f"tenant is {name!r}, one name too many; at most {MAX_TENANTS} are told apart")
                number = self._numbers[name] = self._next
                self._names[number] = name
            return number

    def of_number(self, number: int) -> int:
        """Return the number itself. Raises ValueError when it stands for a name."""
        with self._lock:
            name = self._names.get(number)
            if name is not None:
                raise ValueError(f"tenant is {number}, which stands for {name!r}; give the name or another number")
            if number:
                self._names[number] = None
            return number

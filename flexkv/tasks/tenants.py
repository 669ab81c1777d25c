"""TenantNumbers: tenants are given by name or by number, and a number stands for one of them only. Thread-safe.

Numbers are kept with the blocks, on SSD too, and outlive the process. So the number of a name follows from the name:
the first two bytes of its SHA-256 over UTF-8, as a big-endian number. Where that is 0, which stands for no tenant, or
another tenant's already, it is the next number that is nobody's, 1 after MAX_TENANTS. Every process gives a name the
same number, but for such collisions: that there is one among n tenants has the chance of about n * n / 131070 (8 % for
100). Then who came first decides, and blocks from before a restart may be said to be another tenant's. That is all that
can go wrong: a tenant isolates nothing, a namespace does.
"""

from __future__ import annotations

import hashlib
import threading

__all__ = ["MAX_TENANTS", "TenantNumbers"]

MAX_TENANTS = 65535


class TenantNumbers:
    """Who has which number, in this process."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._names: dict[int, str | None] = {}  # None: given as a number
        self._lock = threading.Lock()

    def of_name(self, name: str) -> int:
        """Return the number of a name. Raises ValueError when no number is left."""
        with self._lock:
            number = self._numbers.get(name)
            if number is None:
                if len(self._names) == MAX_TENANTS:
                    raise ValueError(f"tenant is {name!r}, one name too many; at most {MAX_TENANTS} are told apart")
                number = _first_choice(name)
                while number in self._names:
                    number = number % MAX_TENANTS + 1
                self._numbers[name] = number
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


def _first_choice(name: str) -> int:
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:2], "big") or 1

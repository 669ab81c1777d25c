"""Settings of all tests."""

from __future__ import annotations

try:
    from hypothesis import HealthCheck, settings
except ModuleNotFoundError:  # where only tests run that do not use it: beside an engine, on a GPU
    pass
else:
    # A busy machine takes seconds for what an idle one does in milliseconds, its first table of Unicode above all.
    settings.register_profile("flexkv", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("flexkv")

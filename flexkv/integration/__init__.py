"""What speaks an engine's language. Nothing here is imported by the layers below."""

from __future__ import annotations

from flexkv.integration.config import FlexKVConfig

__all__ = ["FlexKVConfig"]

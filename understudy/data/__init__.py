"""Recorded data: files and generators in, one schema (`Dataset`) out. Imports nothing heavy before it is used."""

from __future__ import annotations

import importlib
from typing import Any

_NAMES = {
    "Dataset": "dataset",
    "Finding": "checks",
    "from_arrays": "dataset",
    "monte_carlo_returns": "dataset",
    "load": "loading",
    "check": "loading",
    "info": "loading",
    "locate": "loading",
    "make": "generate",
    "write": "store",
}

__all__ = [*_NAMES]


def __getattr__(name: str) -> Any:
    if name not in _NAMES:
        raise AttributeError(f"module 'understudy.data' has no attribute '{name}'")
    value = getattr(importlib.import_module(f"understudy.data.{_NAMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_NAMES})

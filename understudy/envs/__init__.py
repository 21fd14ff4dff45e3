"""Environments: `make` one, `describe` it, step many as a `vector` with episodes that can be restored exactly.

EnvSpec, make, describe       one environment by id, the same shape of interface for every benchmark   making.py
Episodes, vector, transitions deterministic episodes, exact restore, vector steps to transitions      episodes.py
Pool                          environments in worker processes, for evaluation                        pool.py
"""

from __future__ import annotations

from typing import Any

_HOME = {
    "EnvSpec": "making",
    "make": "making",
    "describe": "making",
    "Episodes": "episodes",
    "Finished": "episodes",
    "vector": "episodes",
    "restore": "episodes",
    "transitions": "episodes",
    "finished": "episodes",
    "reset_seed": "episodes",
    "Pool": "pool",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:  # Gymnasium is imported when something is asked for
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)

"""understudy: learn a policy from recordings, then improve it live.

    import understudy
    run = understudy.train("iql", "ogbench/cube-single-play-singletask-v0", offline=60_000, online=20_000)
    run.evaluate(episodes=100)
    run.policy(observations)

Importing this package imports nothing heavy: each name below is loaded when it is first used.
"""

from __future__ import annotations

import importlib
from typing import Any

_NAMES = {
    "train": "understudy.run.train",
    "resume": "understudy.run.resume",
    "Run": "understudy.run.train",
    "make": "understudy.registry",
    "Dataset": "understudy.data.dataset",
    "UserError": "understudy.errors",
    "DataError": "understudy.errors",
    "EnvError": "understudy.errors",
    "SettingsError": "understudy.errors",
    "CheckpointError": "understudy.errors",
    "DivergenceError": "understudy.errors",
}
_MODULES = ("algorithms", "core", "critics", "data", "demo", "envs", "errors", "evaluate", "extractions", "losses",
            "networks", "policies", "presets", "progress", "registry", "run", "settings")  # fmt: skip

__all__ = [*_NAMES, "load", "__version__"]


def load(path: Any, *, env: str | None = None, algorithm: Any = None) -> Any:
    """Open a run folder or a data set.

    Args:
      path: a folder that `train` wrote, or the name or path of a data set.
      env: environment id of the data set, where it does not say so itself.
      algorithm: the object that the run was trained with, where that was none of a name.

    Returns:
      a `Run` or a `Dataset`.

    Raises:
      UserError: there is neither.
    """
    import pathlib

    if (pathlib.Path(path) / "manifest.json").exists():
        from understudy.run.run import Run

        return Run(path, algorithm)
    from understudy import data

    return data.load(path, env=env)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib import metadata

        try:
            value = metadata.version("understudy")
        except metadata.PackageNotFoundError:  # a source tree that was not installed
            value = "0+unknown"
    elif name in _NAMES:
        value = getattr(importlib.import_module(_NAMES[name]), name)
    elif name in _MODULES:
        return importlib.import_module(f"understudy.{name}")
    else:
        raise AttributeError(f"module 'understudy' has no attribute '{name}'")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_NAMES, *_MODULES, "__version__"})

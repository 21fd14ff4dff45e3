"""Further writers of metrics beside metrics.jsonl: TensorBoard events and Weights & Biases, both offline by default.

A sink has `scalars(updates, env_steps, values)` and `close()`. The packages are optional extras, imported when a
sink is opened.
"""

from __future__ import annotations

import importlib.util
import os
import pathlib
import sys
from collections.abc import Iterable, Mapping

from understudy.errors import SettingsError, did_you_mean


class TensorBoard:
    """Event files in RUN/tensorboard; steps are updates, environment steps are a curve of their own.

    Args:
      run_folder: of the run.
      resumed_at: updates at which the run goes on; TensorBoard then hides what an earlier process wrote beyond that.

    Raises:
      SettingsError: tensorboardX is not installed."""

    def __init__(self, run_folder, resumed_at: int | None = None):
        try:
            from tensorboardX import SummaryWriter
        except ImportError:
            raise SettingsError(_install("tensorboard", "tensorboardX")) from None
        path = pathlib.Path(run_folder) / "tensorboard"
        purge = None if resumed_at is None else resumed_at + 1
        self._writer = SummaryWriter(logdir=str(path), purge_step=purge, flush_secs=10)

    def scalars(self, updates: int, env_steps: int, values: Mapping[str, float]) -> None:
        """Write {name: value} at this point of the run."""
        for name, value in values.items():
            self._writer.add_scalar(name, float(value), updates)
        self._writer.add_scalar("progress/env_steps", env_steps, updates)

    def close(self) -> None:
        """Write what is left. A second call does nothing."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None


class WandB:
    """A Weights & Biases run in RUN/wandb, offline unless the environment variable WANDB_MODE says otherwise.

    `wandb sync RUN/wandb/offline-run-*` uploads it later.

    Args:
      run_folder: of the run.
      config: what is recorded as the run's configuration, e.g. its manifest.

    Raises:
      SettingsError: wandb is not installed."""

    def __init__(self, run_folder, config: Mapping | None = None):
        try:
            import wandb
        except ImportError:
            raise SettingsError(_install("wandb", "wandb")) from None
        path = pathlib.Path(run_folder).absolute()
        self._run = wandb.init(
            project="understudy",
            name=path.name,
            dir=str(path),
            mode=os.environ.get("WANDB_MODE") or "offline",
            config=dict(config or {}),
        )
        self._run.define_metric("*", step_metric="updates")

    def scalars(self, updates: int, env_steps: int, values: Mapping[str, float]) -> None:
        """Write {name: value} at this point of the run."""
        self._run.log({name: float(v) for name, v in values.items()} | {"updates": updates, "env_steps": env_steps})

    def close(self) -> None:
        """Write what is left. A second call does nothing."""
        if self._run is not None:
            self._run.finish()
            self._run = None


SINKS = {"tensorboard": "tensorboardX", "wandb": "wandb"}  # name -> package


def check(names: Iterable[str]) -> None:
    """Raise SettingsError where `open_sink` would: an unknown name, a package that is not installed."""
    for name in names:
        if name not in SINKS:
            raise SettingsError(f"There is no logger '{name}'.{did_you_mean(name, SINKS)}")
        package = SINKS[name]
        if sys.modules.get(package) is None and importlib.util.find_spec(package) is None:
            raise SettingsError(_install(name, package))


def open_sink(name: str, run_folder, manifest: Mapping | None = None) -> TensorBoard | WandB:
    """Open the sink of that name for a run.

    Args:
      name: "tensorboard" or "wandb".
      run_folder: of the run.
      manifest: of the run; its last resume says where TensorBoard goes on, its settings are recorded by W&B.

    Raises:
      SettingsError: unknown name, or a package that is not installed."""
    check([name])
    manifest = manifest or {}
    if name == "tensorboard":
        resumes = manifest.get("resumes") or []
        return TensorBoard(run_folder, resumes[-1]["updates"] if resumes else None)
    wanted = ("algorithm", "preset", "settings", "env", "seeds", "dataset", "phases", "plan", "versions")
    return WandB(run_folder, {k: manifest[k] for k in wanted if k in manifest})


def _install(extra: str, package: str) -> str:
    return f"Logging to {extra} needs the package {package}, which is not installed; pip install understudy[{extra}]"

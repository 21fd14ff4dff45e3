"""A run of a few seconds through all four phases, in a process of its own, that tests may kill.

Arguments: OUT DATA SEEDS ALGORITHM [SWITCH], where ALGORITHM may be followed by settings and lengths of phases:
"qc_fql chunk=3 retrain=0". With DIES_AFTER=N in the environment it kills itself after so many live steps."""

from __future__ import annotations

import os
import pathlib
import signal
import sys

import understudy
from understudy.errors import UserError
from understudy.run import loop, record
from understudy.run.collect import Collector


def die_after(steps: int) -> None:
    """Of this process, not of the run."""
    step, left = Collector.step, [steps]

    def last(self):
        left[0] -= 1
        if left[0] < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return step(self)

    Collector.step = last


def main(out: str, data: str, seeds: str, algorithm: str, switch: str | None = None) -> None:
    loop.HOST_CHUNK, record.LOG_SECONDS = 20, 0.1  # short calls, many checkpoints
    if (pathlib.Path(out) / "manifest.json").exists():
        understudy.resume(out)
        return
    algorithm, *words = algorithm.split()
    settings = dict(word.split("=") for word in words) or {"critic.hidden": (32, 32), "policy.hidden": (32, 32)}
    lengths = dict(offline=400, warmup=120, online=400, retrain=300)
    alone = {name: int(settings.pop(name, steps)) for name, steps in lengths.items()}
    understudy.train(
        algorithm, data, env="Pendulum-v1", seeds=int(seeds), out=out, settings=settings,
        batch_size=32, eval_every=150, episodes=2, checkpoint_every=0.0, switch=switch,
        online_settings={"learning_rate": 1e-4} if switch else None, **alone,
    )  # fmt: skip


if __name__ == "__main__":
    if "DIES_AFTER" in os.environ:
        die_after(int(os.environ["DIES_AFTER"]))
    try:
        main(*sys.argv[1:])
    except UserError as error:
        sys.exit(f"{error}")

"""A run of a few seconds through all four phases, in a process of its own, that tests may kill.

Arguments: OUT DATA SEEDS ALGORITHM [SWITCH], where ALGORITHM may be followed by settings and lengths of phases:
"qc_fql chunk=3 retrain=0"."""

from __future__ import annotations

import pathlib
import sys

import understudy
from understudy.errors import UserError
from understudy.run import loop


def main(out: str, data: str, seeds: str, algorithm: str, switch: str | None = None) -> None:
    loop.HOST_CHUNK, loop.LOG_SECONDS = 20, 0.1  # short calls, many checkpoints
    if (pathlib.Path(out) / "manifest.json").exists():
        understudy.resume(out)
        return
    algorithm, *words = algorithm.split()
    settings = dict(word.split("=") for word in words) or {"critic.hidden": (32, 32), "policy.hidden": (32, 32)}
    alone = {name: int(settings.pop(name, steps)) for name, steps in dict(offline=400, warmup=120, retrain=300).items()}
    understudy.train(
        algorithm, data, env="Pendulum-v1", online=400, seeds=int(seeds), out=out, settings=settings,
        batch_size=32, eval_every=150, episodes=2, checkpoint_every=0.0, switch=switch,
        online_settings={"learning_rate": 1e-4} if switch else None, **alone,
    )  # fmt: skip


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except UserError as error:
        sys.exit(f"{error}")

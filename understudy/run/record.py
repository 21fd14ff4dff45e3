"""What a run writes down as it learns: a line of metrics.jsonl about every second, and the same to further sinks."""

from __future__ import annotations

import time

import numpy as np

from understudy.errors import DivergenceError
from understudy.evaluate.statistics import successes_of
from understudy.run.folder import RunFolder
from understudy.run.plan import Counters

LOG_SECONDS = 1.0  # a line of metrics about this often
SHOWN = ("critic/q", "train/success", "train/return")  # beside the progress bar


class Record:
    """Metrics and finished episodes since the last line.

    Args:
      folder: where the lines go.
      seeds: of the run, K.
      lanes: parallel environments of each seed.

    Attributes:
      names: of the metrics, in the algorithm's order.
      sinks: further writers, with `scalars(updates, env_steps, values)` and `close()`.
    """

    def __init__(self, folder: RunFolder, seeds: tuple[int, ...], lanes: int):
        self.folder, self.seeds, self.lanes = folder, seeds, lanes
        self.names: tuple[str, ...] = ()
        self.sinks: tuple = ()
        self._sums: list = []  # (metrics, updates) of whole calls
        self._live: list = []  # (metrics, number) of vector steps
        self._finished: list = []
        self._logged_at = self._clock = time.monotonic()

    def add(self, sums, count: int) -> None:
        """`count` updates whose metrics sum to `sums` [K, M] and were found finite."""
        self._sums.append((sums, count))

    def add_live(self, metrics, number: int) -> None:
        """One vector step's metrics [K, M], which may still be under way on the device; `number` counts updates."""
        self._live.append((metrics, number))

    def add_episodes(self, finished: list) -> None:
        """Live episodes that have ended."""
        self._finished += finished

    def evaluated(self, counters: Counters, rows: list[dict]) -> None:
        """Write an evaluation's rows down."""
        self.folder.append("episodes.jsonl", rows)
        self._scalars(counters, _outcome("evaluate", [r["return"] for r in rows], [r["success"] for r in rows]))

    def log(self, counters: Counters, phase: str, force: bool = False) -> dict:
        """Write a line if it is time, or anyway; return what the progress bar shows. Raises DivergenceError where a
        metric is not finite."""
        learned = self._sums or self._live
        if not (force or time.monotonic() - self._logged_at > LOG_SECONDS) or not (learned or self._finished):
            return {}
        self.count_seconds(counters)
        row = {"phase": phase, "updates": counters.updates, "env_steps": counters.env_steps,
               "seconds": round(counters.seconds, 3)}  # fmt: skip
        values = {}
        if learned:
            mean = self._mean()
            row["metrics"] = {n: [round(float(v), 6) for v in mean[:, i]] for i, n in enumerate(self.names)}
            values = {n: float(mean[:, i].mean()) for i, n in enumerate(self.names)}
        if self._finished:
            row["episodes"] = {"seed": [self.seeds[e.env // self.lanes] for e in self._finished],
                               "return": [e.return_ for e in self._finished],
                               "success": [e.success for e in self._finished]}  # fmt: skip
            values |= _outcome("train", row["episodes"]["return"], row["episodes"]["success"])
        self.folder.append("metrics.jsonl", [row])
        self._scalars(counters, values)
        self._sums, self._live, self._finished, self._logged_at = [], [], [], time.monotonic()
        return {k.split("/")[-1]: v for k, v in values.items() if k in SHOWN}

    def _mean(self) -> np.ndarray:
        """Metrics [K, M] averaged over the updates since the last line."""
        if self._sums:
            return sum(sums for sums, _ in self._sums) / sum(n for _, n in self._sums)
        each = np.stack([np.asarray(m) for m, _ in self._live])  # [T, K, M]
        bad = ~np.isfinite(each)
        if bad.any():
            first = int(bad.any((1, 2)).argmax())
            raise self.diverged(self._live[first][1], bad[first])
        return each.mean(0)

    def count_seconds(self, counters: Counters) -> None:
        """Add the time since the last call to the run's."""
        now = time.monotonic()
        counters.seconds, self._clock = counters.seconds + now - self._clock, now

    def _scalars(self, counters: Counters, values: dict[str, float]) -> None:
        for sink in self.sinks:
            sink.scalars(counters.updates, counters.env_steps, values)

    def diverged(self, step: int, bad: np.ndarray) -> DivergenceError:
        """`bad` [K, M] marks the metrics that went bad at `step`; name the first in the algorithm's order."""
        seed, metric = (int(i[0]) for i in np.nonzero(bad))
        return DivergenceError(
            f"{self.names[metric]} became NaN or infinite at update {step:,} (seed {self.seeds[seed]}); {self.way_out}"
        )

    @property
    def way_out(self) -> str:
        """What to do about a divergence."""
        return (
            f"the last good checkpoint is kept in {self.folder.path / 'checkpoints'}. Lower the learning rate or check "
            f"the data's scale (understudy data info), then start again, or resume with other settings."
        )

    def close(self) -> None:
        for sink in self.sinks:
            sink.close()


def _outcome(what: str, returns: list, success: list) -> dict[str, float]:
    values = {f"{what}/return": float(np.mean(returns))}
    if (known := successes_of(success)) is not None:
        values[f"{what}/success"] = float(np.mean(known))
    return values

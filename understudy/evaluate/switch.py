"""What going live did to a run, in numbers: the dip after the switch, the recovery, the performance while learning.

Everything is computed from evaluations (greedy, the same starts each time), regret apart: that is over the episodes
which the learner played itself, as in CORL (Tarasov et al. 2022, arXiv:2210.07105): one minus its success so far.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from understudy.evaluate.curves import Curves, Point, q_name


def measure(curves: Curves) -> dict[str, Any] | None:
    """What happened after the switch; None where nothing was evaluated live.

    Returns:
      offline: value at the switch (success, or the return where the task defines no success), `final`: at the end.
      dip: how far the value fell below `offline`, at its lowest evaluation; 0 if it never did.
      dip_at: environment steps after the switch of that lowest evaluation, None without a dip.
      recovered: environment steps after the switch of the first evaluation from there on that is no lower than
        `offline`; 0 without a dip, None if it never came back.
      area: area under the curve from the switch on, divided by its length in steps: the mean value while learning live.
      regret: 1 - mean success of the episodes played to learn, None where the task defines no success or none ended.
      evaluated_regret: 1 - mean of the live evaluations, in success or hundredths of the normalised score.
      q_before, q_after, q_final: the critic's mean value of its batches (about a second of them) at the end of the
        offline phase, when the first live evaluation was made, and at the end of the live phases.
      by_seed: the same of each seed. The rest is of the mean over seeds, whose dip is not the mean of theirs.
    """
    switch, live = curves.switch, curves.live
    if switch is None or not live:
        return None
    points = [switch, *live]
    values = np.array([p.values.mean(1) for p in points])  # [T, K]
    scores = [_normalised(p) for p in live]
    scores = None if any(s is None for s in scores) else np.mean(scores, 0)  # [K]
    steps = np.array([p.env_steps - switch.env_steps for p in points], float)
    regret, q = _regret(curves), _q(curves, live[0].env_steps)  # [K], {name: [K]}

    def numbers(curve, k) -> dict[str, Any]:
        found = shape(steps, curve)
        found["regret"] = None if regret is None else _number(np.mean(regret[k]))
        found["evaluated_regret"] = None if scores is None else _number(1 - np.mean(scores[k]))
        return found | {name: _number(np.mean(v[k])) for name, v in q.items()}

    seeds = range(values.shape[1])
    return numbers(values.mean(1), slice(None)) | {"by_seed": [numbers(values[:, k], [k]) for k in seeds]}


def shape(steps: Sequence[float], values: Sequence[float]) -> dict[str, Any]:
    """Dip, recovery and area of one curve whose first value is at the switch; see `measure`."""
    steps, values = np.asarray(steps, float), np.asarray(values, float)
    lowest = int(values.argmin())
    dip = float(values[0] - values[lowest])
    dip = dip if dip > 1e-12 else 0.0  # less is rounding
    back = [int(s) for s, v in zip(steps[lowest:], values[lowest:]) if v >= values[0] - 1e-12]
    width = steps[-1] - steps[0]
    return {
        "offline": _number(values[0]),
        "final": _number(values[-1]),
        "dip": dip,
        "dip_at": int(steps[lowest]) if dip > 0 else None,
        "recovered": 0 if dip == 0 else back[0] if back else None,
        "area": _number(np.trapezoid(values, steps) / width if width > 0 else values[-1]),
    }


def _normalised(point: Point) -> np.ndarray | None:
    """Success, or the benchmark's score with 1 for an expert: [K]; None where the task defines neither."""
    if point.success is not None:
        return point.success.mean(1)
    return None if point.score is None else point.score.mean(1) / 100


def _regret(curves: Curves) -> np.ndarray | None:
    """1 - mean success of each seed's training episodes, [K]; of all of them where the log does not tell whose."""
    played = curves.metrics.played
    here = np.isin(played["phase"], list(acting(curves))) & ~np.isnan(played["success"])
    if not here.any():
        return None
    seeds, success = played["seed"][here], played["success"][here]
    mine = [success[seeds == s] for s in curves.seeds]
    if not all(map(len, mine)):
        mine = [success] * len(mine)
    return 1 - np.array([x.mean() for x in mine])


def acting(curves: Curves) -> set[str]:
    """Names of the phases that act in the environment."""
    return {name for part in curves.parts if part.unit == "env_steps" for name in part.phases}


def _q(curves: Curves, first: int) -> dict[str, np.ndarray]:
    """{"q_before", "q_after", "q_final": [K]}, NaN where not recorded. `first`: steps at the first live evaluation."""
    metrics, name = curves.metrics, q_name(curves.metrics)
    found = dict.fromkeys(("q_before", "q_after", "q_final"), np.full(len(curves.seeds), np.nan))
    if name is None:
        return found
    values, phases = metrics.values[name], np.array(metrics.phases)
    known = ~np.isnan(values).any(1)
    offline = np.flatnonzero(known & (phases == "offline"))
    live = np.flatnonzero(known & np.isin(phases, list(acting(curves))))
    stretch = live[metrics.env_steps[live] <= first]
    if len(offline):
        found["q_before"] = values[offline[-1]]
    if len(live):
        found |= {"q_after": values[stretch[-1] if len(stretch) else live[0]], "q_final": values[live[-1]]}
    return found


def _number(value) -> float | None:
    value = float(value)
    return value if math.isfinite(value) else None

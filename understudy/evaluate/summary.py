"""What a run achieved, in numbers."""

from __future__ import annotations

import math
from typing import Any

from understudy.evaluate.curves import Curves, Point, interval, read
from understudy.evaluate.switch import measure


def summary(run_folder) -> dict[str, Any]:
    """What a run achieved, ready for JSON; None wherever the task or the logs do not define a number.

    Args:
      run_folder: path of a run folder, or `Curves` already read.

    Returns:
      success, success_by_seed: of the last evaluation, mean over seeds and [K]; best_success: the highest mean of any
        evaluation; offline_success: of the last evaluation of phase "offline" (without one, of "start"), the same as
        success if nothing was learned live.
      return, return_by_seed, best_return, offline_return, score, offline_score: likewise.
      interval, best_interval, offline_interval: [low, high], 95%, of success, or of the return where the task defines
        no success.
      best_at: {"phase", "updates", "env_steps"} of the best evaluation.
      episodes: evaluation episodes of each seed in the last evaluation; seeds: training seeds.
      updates, env_steps, seconds, finished: how far the run is; switch: see `switch.measure`.
      points: one dict for each evaluation: phase, updates, env_steps, success [K] or None, return [K], mean, interval.
    """
    curves = run_folder if isinstance(run_folder, Curves) else read(run_folder)
    last, top, before = curves.last, curves.best, curves.switch
    if not curves.live and last is not None:
        before = last
    result: dict[str, Any] = {}
    for name, point in (("", last), ("best_", top), ("offline_", before)):
        result[f"{name}success"] = _mean(point, "success")
        result[f"{name}return"] = _mean(point, "returns")
        result[f"{name}interval"] = _bounds(point)
    result["score"], result["offline_score"] = _mean(last, "score"), _mean(before, "score")
    result["success_by_seed"] = _by_seed(last, "success")
    result["return_by_seed"] = _by_seed(last, "returns")
    result["best_at"] = {k: getattr(top, k) for k in ("phase", "updates", "env_steps")} if top is not None else None
    result |= {
        "episodes": int(last.returns.shape[1]) if last is not None else 0,
        "seeds": list(curves.seeds),
        "updates": curves.updates,
        "env_steps": curves.env_steps,
        "seconds": curves.seconds,
        "finished": curves.finished,
        "switch": measure(curves),
        "points": [_point(p) for p in curves.points],
    }
    return result


def _bounds(point: Point | None) -> list[float] | None:
    bounds = [] if point is None else [b for b in interval(point.values)[1:] if math.isfinite(b)]
    return bounds or None


def _point(point: Point) -> dict[str, Any]:
    return {
        "phase": point.phase,
        "updates": point.updates,
        "env_steps": point.env_steps,
        "success": _by_seed(point, "success"),
        "return": _by_seed(point, "returns"),
        "mean": _number(point.values.mean()),
        "interval": _bounds(point),
    }


def _mean(point: Point | None, name: str) -> float | None:
    values = None if point is None else getattr(point, name)
    return None if values is None else _number(values.mean())


def _by_seed(point: Point | None, name: str) -> list[float | None] | None:
    values = None if point is None else getattr(point, name)
    return None if values is None else [_number(v) for v in values.mean(1)]


def _number(value) -> float | None:
    """A float that JSON has, else None."""
    value = float(value)
    return value if math.isfinite(value) else None

"""Means over episodes and training seeds with intervals; nothing but NumPy and the standard library."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable

import numpy as np

from understudy.errors import DataError

RESAMPLES = 10_000


def successes_of(reported: Iterable[float | None]) -> list[float] | None:
    """Successes of episodes, 0 where one has reported none and another some, since some environments report only what
    has succeeded; None where none reports any."""
    reported = list(reported)
    return None if all(x is None for x in reported) else [0.0 if x is None else float(x) for x in reported]


def summary(values: np.ndarray, *, confidence: float = 0.95) -> tuple[float, float, float]:
    """Return the mean of K training seeds x M episodes, and an interval around it.

    One seed of successes and failures, or several whose episodes all came out alike: Wilson's score interval over the
    episodes (exact about 0 and 1, where a normal interval is not). Else a percentile bootstrap of 10,000 draws with a
    fixed generator that draws seeds with replacement and, within each drawn seed, episodes with replacement: the
    interval speaks of new seeds and new episodes. One seed of returns: of new episodes with this one seed. Few seeds
    make a bootstrap interval too narrow: with 3 seeds it holds the true mean less often than it says.

    Args:
      values: [K, M] or [M], success (0 or 1) or return of every episode.
      confidence: between 0 and 1.

    Returns:
      mean, low, high.

    Raises:
      DataError: no values, or a value that is not a number.

    Source: Wilson 1927; Agarwal et al. 2021 (stratified bootstrap over runs).
    """
    values = _checked(values)
    mean = float(values.mean())
    if len(values) == 1 and np.isin(values, (0, 1)).all():
        return mean, *wilson(float(values.sum()), values.size, confidence=confidence)
    low, high = _bootstrap(values, lambda sample: sample.mean((1, 2)), confidence)
    if values.min() == values.max() and values[0, 0] in (0, 1):  # resampling sees no doubt where all came out alike
        low, high = wilson(float(values.sum()), values.size, confidence=confidence)
    return mean, low, high


def wilson(successes: float, episodes: int, *, confidence: float = 0.95) -> tuple[float, float]:
    """Return Wilson's score interval (low, high) of a success rate."""
    z = statistics.NormalDist().inv_cdf((1 + confidence) / 2)
    rate, share = successes / episodes, z * z / episodes
    centre = (rate + share / 2) / (1 + share)
    half = z / (1 + share) * math.sqrt(rate * (1 - rate) / episodes + share / (4 * episodes))
    # At 0 and at all successes one end is exact; rounding must not move it.
    return (0.0 if successes == 0 else centre - half), (1.0 if successes == episodes else centre + half)


def _checked(values: np.ndarray) -> np.ndarray:
    values = np.asarray(values, np.float64)
    if values.ndim == 1:
        values = values[None]
    if values.ndim != 2 or values.size == 0:
        raise DataError(f"Expected values [seeds, episodes], at least one; got an array of shape {values.shape}.")
    if not np.isfinite(values).all():
        bad = int((~np.isfinite(values)).sum())
        raise DataError(f"{bad} of {values.size} values are not finite; expected numbers: leave out what is undefined.")
    return values


def _bootstrap(values: np.ndarray, statistic, confidence: float) -> tuple[float, float]:
    seeds, episodes = values.shape
    rng = np.random.default_rng(0)
    drawn = []
    size = max(1, 2_000_000 // values.size)  # draws at a time, to bound memory
    for start in range(0, RESAMPLES, size):
        n = min(size, RESAMPLES - start)
        which = rng.integers(seeds, size=(n, seeds, 1))
        drawn.append(statistic(values[which, rng.integers(episodes, size=(n, seeds, episodes))]))
    tail = (1 - confidence) / 2
    low, high = np.quantile(np.concatenate(drawn), [tail, 1 - tail])
    return float(low), float(high)

"""Checks at the border: what is wrong with recorded data, where, and what to do about it."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from understudy.errors import DataError


@dataclasses.dataclass(frozen=True)
class Finding:
    """Something worth knowing about a data set.

    Attributes:
      level: "error" (it cannot be used), "warning" (it can, but look) or "info".
      message: what was found and what was expected.
      mend: what to do about it.
      key: the column, where there is one. row: its first row in question.
    """

    level: str
    message: str
    mend: str = ""
    key: str = ""
    row: int | None = None

    def __str__(self) -> str:
        return self.message if not self.mend else f"{self.message.rstrip('.')}; {self.mend}"


class Report(list):
    """Findings as they come up. An error raises `DataError` at once unless `keep` collects it."""

    def __init__(self, what: str, keep: bool = False):
        super().__init__()
        self.what, self.keep = what, keep

    def error(self, message: str, mend: str, key: str = "", row: int | None = None) -> None:
        finding = Finding("error", message, mend, key, row)
        if not self.keep:
            raise DataError(f"{self.what}: {finding}")
        self.append(finding)

    def warning(self, message: str, mend: str = "", key: str = "", row: int | None = None) -> None:
        self.append(Finding("warning", message, mend, key, row))

    def info(self, message: str, mend: str = "", key: str = "") -> None:
        self.append(Finding("info", message, mend, key))

    @property
    def failed(self) -> bool:
        return any(f.level == "error" for f in self)

    @property
    def notes(self) -> tuple[str, ...]:
        return tuple(f"warning: {f}" if f.level == "warning" else str(f) for f in self)


def not_vectors(observations: Any) -> str:
    """What the networks cannot take of observations, "" where there is nothing."""
    if isinstance(observations, dict):
        return next(filter(None, map(not_vectors, observations.values())), "")
    if observations.ndim == 2:
        return ""
    shape = ", ".join(map(str, ("N", *observations.shape[1:])))
    return f"the observations have the shape [{shape}], and the networks take vectors [N, size] or dictionaries of them"


def check_column(x: np.ndarray, key: str, report: Report, *, ndim: int | None = None, rows: np.ndarray | None = None):
    """Return a column as float32 (uint8 stays), checked for type, dimensions and numbers that are none.

    Args:
      ndim: dimensions it must have. rows: row in the file of each row, for messages.
    """
    x = np.asarray(x)
    if x.dtype.kind not in "fiub":
        report.error(f"{key} holds {x.dtype} values; expected numbers", "write it as float32", key)
        return x
    if ndim is not None and x.ndim == ndim + 1 and x.shape[-1] == 1:
        x = x[..., 0]  # rewards [N, 1]
    if ndim is not None and x.ndim != ndim:
        expected = {1: "[N]", 2: "[N, A]"}[ndim]
        hint = "discrete actions are not read; " if key == "actions" and x.ndim == 1 else ""
        report.error(f"{key} has the shape {list(x.shape)}; expected {expected}", f"{hint}write one row a step", key)
        return x
    if len(x) and not x[0].size:
        report.error(f"{key} has the shape {list(x.shape)}, rows of no numbers", "write at least one a step", key)
        return x
    if x.dtype.kind == "f":
        x = x.astype(np.float32, copy=False) if x.dtype.itemsize <= 4 else _narrow(x)
        bad = first_not_finite(x)
        if bad is not None:
            row = int(bad if rows is None else rows[bad])
            word = "NaN" if np.isnan(x[bad]).any() else "infinity"
            report.error(f"{key} holds {word}, first in row {row:,}", "remove or repair that trajectory", key, row)
    elif not (x.dtype == np.uint8 and key.startswith(("observations", "next_observations"))):
        x = x.astype(np.float32)
    return x


def _narrow(x: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is then found
        return x.astype(np.float32)


def first_not_finite(x: np.ndarray) -> int | None:
    """The first row with NaN or infinity, or None. Reads in pieces, so that a mapped file is never copied whole."""
    step = max(1, (1 << 22) // max(1, int(np.prod(x.shape[1:]))))
    for i in range(0, len(x), step):
        fine = np.isfinite(x[i : i + step])
        if not fine.all():
            return i + int(np.argmin(fine.reshape(len(fine), -1).all(1)))
    return None


def check_flags(x: np.ndarray, key: str, report: Report) -> np.ndarray:
    """Return a column [N] of 0 and 1 as bool."""
    x = np.asarray(x)
    if x.ndim == 2 and x.shape[1] == 1:
        x = x[:, 0]
    if x.ndim != 1:
        report.error(f"{key} has the shape {list(x.shape)}; expected [N]", "write one flag a step", key)
        return np.zeros(len(x) if x.ndim else 0, bool)
    if x.dtype == bool:
        return x
    wrong = ~((x == 0) | (x == 1)) if x.dtype.kind in "fiu" else np.ones(len(x), bool)
    if wrong.any():
        row = int(np.argmax(wrong))
        report.error(f"{key} holds {x[row]!s} in row {row:,}; expected 0 or 1", "write it as bool", key, row)
        return np.zeros(len(x), bool)
    return x == 1


def scale_actions(actions: np.ndarray, low, high, given: bool, report: Report) -> tuple[np.ndarray, Any, Any]:
    """Map actions from [low, high] to [-1, 1] and clip what lies outside; returns (actions, low, high)."""
    size = actions.shape[1]
    given_low, given_high = low, high
    try:
        low, high = (np.broadcast_to(np.asarray(x, np.float32), (size,)).copy() for x in (low, high))
        fine = bool(np.isfinite(low).all() and np.isfinite(high).all() and (low < high).all())
    except (ValueError, TypeError):  # another number of entries, or no numbers
        fine = False
    if not fine:
        report.error(f"the action range is {given_low} to {given_high}; expected finite numbers, low below high",
                     f"give two numbers, or two lists of {size} (one for each action entry)")  # fmt: skip
        return actions, low, high
    if not ((low == -1).all() and (high == 1).all()):
        actions = (2 * (actions - low) / (high - low) - 1).astype(np.float32)
    largest = float(np.abs(actions).max(initial=0.0))
    if largest > 1:
        # Rounding of a stored bound is no finding.
        outside = np.abs(actions) > 1 + 1e-5
        share = float(outside.mean())
        actions = np.clip(actions, -1, 1)
        if not given and (share > 0.2 or largest > 3):  # no rounding or overshoot: another unit
            report.error(
                f"{share:.1%} of action entries lie outside [-1, 1] (up to {largest:.3g})",
                "say in which range they were recorded, -1 1 to clip them: --action-range LOW HIGH, or in Python "
                "action_range=(low, high)",
                "actions",
                int(np.argmax(outside.any(1))),
            )
        elif share:
            scaled = " once scaled" if given else ""
            report.warning(
                f"{share:.1%} of action entries lay outside [-1, 1]{scaled} (up to {largest:.3g}) and were clipped",
                key="actions",
                row=int(np.argmax(outside.any(1))),
            )
    elif 0 < largest < 0.05:
        report.warning(f"No action is larger than {largest:.2g} in a range of [-1, 1]",
                       "say in which range they were recorded: --action-range LOW HIGH", "actions")  # fmt: skip
    return actions, low, high

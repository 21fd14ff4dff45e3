"""How a report writes numbers, moments and tables. Every text that comes from a file is escaped."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

from understudy.evaluate.curves import Curves, Point, interval
from understudy.evaluate.plot import escape

MOST_SEEDS = 16  # drawn and listed one by one; more would be a smear


def plural(count: int, word: str) -> str:
    return f"{count:,} {word}{'' if count == 1 else 's'}"


def percent(value: float) -> str:
    return f"{100 * value:.0f}%"


def number(value: float) -> str:
    """Three or four digits, whatever the size."""
    size = abs(value)
    if not math.isfinite(value):
        return "n/a"
    if size >= 1e6:
        return f"{value / 1e6:.3g}M"
    if size >= 100:
        return f"{value:,.0f}".replace("-", "−")
    if size >= 10:
        return f"{value:.1f}".replace("-", "−")
    if size >= 0.1 or size == 0:
        return f"{value:.2f}".replace("-", "−")
    return f"{value:.2g}".replace("-", "−")


def duration(seconds: float) -> str:
    minutes, hours = seconds / 60, seconds / 3600
    if minutes < 1:
        return f"{seconds:.0f} s"
    return f"{minutes:.0f} min" if minutes < 100 else f"{hours:.1f} h"


def writer(curves: Curves) -> Callable[[float], str]:
    """How a success or a return is written."""
    return percent if curves.has_success else number


def interval_text(curves: Curves, point: Point) -> str:
    _, low, high = interval(point.values)
    if not math.isfinite(low):
        return "no interval: some returns are not finite"
    if curves.has_success:
        return f"95% interval {100 * low:.0f} to {100 * high:.0f}%"
    return f"95% interval {number(low)} to {number(high)}"


def when(point: Point, curves: Curves) -> str:
    if point.phase == "start":
        return "before training"
    part = curves.parts[point.part]
    if part.unit == "env_steps":
        return f"after {point.x:,} environment steps"
    return f"after {point.x:,} {point.phase} updates"


def algorithm_of(manifest: dict) -> str:
    return manifest.get("algorithm") or manifest.get("object") or "unknown algorithm"


def value_text(value) -> str:
    if isinstance(value, list | tuple):
        return " ".join(value_text(v) for v in value) or "none"
    if value is None:
        return "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


def block(title: str, content: str, style: str, note: str = "") -> str:
    small = f' <span class="small">{escape(note)}</span>' if note else ""
    return f'<div class="block {style}"><h3>{escape(title)}{small}</h3>{content}</div>' if content else ""


def table(rows: Iterable[tuple[str, object]]) -> str:
    body = "".join(f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in rows)
    return f"<table>{body}</table>" if body else ""


def grid(names: Iterable[str], rows: str) -> str:
    head = "".join(f"<th>{name}</th>" for name in names)
    return f'<table class="grid"><tr>{head}</tr>{rows}</table>' if rows else ""

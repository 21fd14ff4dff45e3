"""Charts of a run as inline SVG: plain text, coloured by the CSS classes of the page they stand in."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence

import numpy as np

from understudy.evaluate.curves import Part


def escape(text) -> str:
    return html.escape(str(text))


def tick_label(value: float) -> str:
    """An axis label: 250, 5k, 1.5M, 1e-05."""
    if value == 0:
        return "0"
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.6g}{letter}".replace("-", "−")
    return f"{value:.6g}".replace("-", "−")


def colour(parts: Sequence[Part], i: int) -> str:
    """Grey for what comes before live learning, the accent for all else."""
    return "before" if any(p.unit == "env_steps" for p in parts[i:]) and parts[i].unit == "updates" else "after"


def drawing(width: float, height: float, items: Iterable[str], label: str) -> str:
    return (f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(label)}" '
            f'xmlns="http://www.w3.org/2000/svg">{"".join(items)}</svg>')  # fmt: skip


def segment(x1: float, y1: float, x2: float, y2: float, style: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{style}"/>'


def dot(x: float, y: float, radius: float, style: str, title: str) -> str:
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}" class="{style}"><title>{escape(title)}</title></circle>'


def value_range(values: Iterable[float]) -> tuple[float, float]:
    """A range that holds the finite values, never empty."""
    values = [v for v in values if math.isfinite(v)] or [0.0, 1.0]
    low, high = min(values), max(values)
    if high - low < 1e-9 * max(abs(low), abs(high), 1e-9):
        room = 0.5 * abs(high) or 1.0
        return low - room, high + room
    return low, high


def round_numbers(low: float, high: float, most: int) -> list[float]:
    """Round numbers within [low, high], as many as there can be up to `most`."""
    if not high > low:
        return [low]
    power = 10.0 ** math.floor(math.log10((high - low) / most))
    for step in (m * power for m in (1, 2, 2.5, 5, 10, 20, 25, 50, 100)):
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        if last - first < most:
            break
    return [round(k * step, 12) + 0.0 for k in range(first, last + 1)]


class Plot:
    """A chart whose x axis is the run: one stretch for each `Part`, side by side.

    Args:
      parts: of the run.
      width, height: of the drawing, in SVG units.
      low, high: of the y axis.
      label: one y tick as text.
      margins: left, right, top, bottom.
    """

    def __init__(self, parts: Sequence[Part], width, height, low, high, label, margins, ticks: int = 6):
        self.parts, self.low, self.high = parts, low, high
        self.width, self.height = width, height
        self.left, right, self.top, bottom = margins
        self.right, self.bottom = width - right, height - bottom
        weights = [1.4 if p.unit == "env_steps" else 1.0 for p in parts]
        share = (self.right - self.left) / sum(weights)
        edges = np.cumsum([0.0, *weights]) * share + self.left
        self.edges = [(float(a), float(b)) for a, b in zip(edges, edges[1:])]
        self.items: list[str] = []
        for value in round_numbers(low, high, ticks):
            y = self.y(value)
            self.items.append(segment(self.left, y, self.right, y, "grid"))
            self.items.append(f'<text x="{self.left - 7}" y="{y + 4:.1f}" class="tick end">{label(value)}</text>')

    def x(self, part: int, value: float) -> float:
        a, b = self.edges[part]
        return a + (b - a) * min(value / max(self.parts[part].length, 1), 1.0)

    def y(self, value: float) -> float:
        value = min(max(value, self.low), self.high)
        return self.bottom - (self.bottom - self.top) * (value - self.low) / (self.high - self.low)

    def axis(self, captions: bool) -> None:
        """Ticks under each part, the switch, and (in a large chart) phase names above and units below."""
        for i, (part, (a, b)) in enumerate(zip(self.parts, self.edges)):
            ticks = round_numbers(0, part.length, max(3, int((b - a) / 75))) if captions else [0, part.length][i > 0 :]
            for tick in ticks:
                x = self.x(i, tick)
                at_end = tick == part.length and (i < len(self.parts) - 1 or not captions)
                anchor, dx = ("end", -4) if at_end else ("start", 4) if tick == 0 and i else ("mid", 0)
                self.items.append(segment(x, self.bottom, x, self.bottom + 4, "frame"))
                self.items.append(f'<text x="{x + dx:.1f}" y="{self.bottom + 17}" class="tick {anchor}">'
                                  f"{tick_label(tick)}</text>")  # fmt: skip
            if captions:
                unit = "environment steps (each seed)" if part.unit == "env_steps" else f"{part.phases[0]} updates"
                self.items.append(f'<text x="{(a + b) / 2:.1f}" y="{self.bottom + 36}" class="caption mid">'
                                  f"{escape(unit)}</text>")  # fmt: skip
                start = 0
                for name, bound in zip(part.phases, part.bounds):
                    p, q = self.x(i, start), self.x(i, bound)
                    style = colour(self.parts, i)
                    self.items.append(f'<rect x="{p:.1f}" y="{self.top - 8}" width="{max(q - p, 1):.1f}" height="4" '
                                      f'class="bar {style}"><title>{escape(name)}</title></rect>')  # fmt: skip
                    if q - p > 8 * len(name) + 60:
                        self.items.append(f'<text x="{(p + q) / 2:.1f}" y="{self.top - 15}" class="phase mid">'
                                          f"{escape(name)}</text>")  # fmt: skip
                    if bound != part.length:
                        self.items.append(segment(q, self.top, q, self.bottom, "phase-end"))
                    start = bound
            if i:
                self.items.append(segment(a, self.top - (14 if captions else 0), a, self.bottom, "switch"))
                if captions:
                    word = "switch" if part.unit == "env_steps" else "end of live phase"
                    self.items.append(f'<text x="{a:.1f}" y="{self.top - 18}" class="switch-label mid">{word}</text>')
        self.items.append(segment(self.left, self.bottom, self.right, self.bottom, "frame"))

    def path(self, places: Iterable[tuple[int, float, float]], style: str) -> None:
        """A line through (part, x, y) places; it is broken where y is not finite."""
        run: list[str] = []
        for part, x, y in [*places, (0, 0.0, math.nan)]:
            if math.isfinite(y):
                run.append(f"{self.x(part, x):.1f},{self.y(y):.1f}")
                continue
            if len(run) > 1:
                self.items.append(f'<polyline points="{" ".join(run)}" class="{style}"/>')
            run = []

    def band(self, places: Sequence[tuple[int, float, float, float]], style: str) -> None:
        """The area between (part, x, low, high)."""
        places = [p for p in places if math.isfinite(p[2])]
        if len(places) > 1:
            upper = [f"{self.x(p, x):.1f},{self.y(high):.1f}" for p, x, _, high in places]
            lower = [f"{self.x(p, x):.1f},{self.y(low):.1f}" for p, x, low, _ in reversed(places)]
            self.items.append(f'<polygon points="{" ".join(upper + lower)}" class="{style}"/>')

    def svg(self, label: str) -> str:
        return drawing(self.width, self.height, self.items, label)

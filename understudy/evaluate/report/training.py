"""Small charts of what was logged while learning."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from understudy.evaluate import curves as curves_module
from understudy.evaluate.curves import Curves, thin
from understudy.evaluate.plot import Plot, colour, escape, tick_label, value_range
from understudy.evaluate.report.words import number, plural

PANEL_POINTS, PANEL_SEEDS = 150, 8  # the most of a line, and the most lines, in a small chart
MOST_METRICS = 9  # small charts


def _chosen(names: Iterable[str]) -> list[str]:
    """The metrics worth a small chart: losses and values first, then the rest in order."""
    first = ("critic/loss", "actor/loss", "critic/q", "critic/target", "v/loss", "critic/v/loss", "actor/imitation")
    names = list(names)
    order = [n for n in first if n in names]
    order += [n for n in names if n.endswith("/loss") and n not in order]
    order += [n for n in names if n.endswith("/q") and n not in order]
    return order + [n for n in names if n not in order]


def section(curves: Curves) -> str:
    metrics = curves.metrics
    if not metrics.phases or not curves.parts:
        return ""
    names = _chosen(n for n, v in metrics.values.items() if not np.isnan(v).all())
    panels = [(n, metrics.values[n]) for n in names[: MOST_METRICS - 2]]
    for name, values in list(metrics.episodes.items())[-1:]:  # success where there is one, else the return
        panels.append((f"{name} of training episodes, running mean", running(values)[:, None]))
    speed = curves_module.rates(metrics)
    if np.isfinite(speed).any():
        panels.append(("updates per second", speed[:, None]))
    if not panels:
        return ""
    counters = zip(metrics.phases, metrics.updates.tolist(), metrics.env_steps.tolist())
    places = [curves.locate(*c) for c in counters]
    charts = "".join(_panel(curves, name, places, values) for name, values in panels)
    left_out = len(names) - len(names[: MOST_METRICS - 2])
    more = f"{plural(left_out, 'more metric')} in metrics.jsonl." if left_out > 0 else ""
    seeds = "thin lines: each seed; " if len(curves.seeds) > 1 else ""
    return f"""<section><h2>Training metrics</h2><div class="panels">{charts}</div>
<p class="small">Means over about a second each, along the same axis as above; {seeds}{_rates_note(curves, speed)}.
{more}</p></section>"""


def running(values: np.ndarray, width: int = 25) -> np.ndarray:
    """Mean of the last `width` finite values at each place; NaN before the first."""
    finite = np.isfinite(values)
    total, count = (np.concatenate([np.zeros(1), np.cumsum(v)]) for v in (np.where(finite, values, 0.0), finite))
    place = np.searchsorted(count, np.maximum(count - width, 0))  # where the window begins
    with np.errstate(invalid="ignore"):
        return ((total - total[place]) / (count - count[place]))[1:]


def _rates_note(curves: Curves, speed: np.ndarray) -> str:
    """Median updates per second of each phase."""
    said = []
    for name in dict.fromkeys(curves.metrics.phases):
        of = speed[[p == name for p in curves.metrics.phases]]
        of = of[np.isfinite(of) & (of > 0)]
        if len(of):
            said.append(f"{escape(name)} {np.median(of):,.0f}")
    return "median updates per second of all seeds together: " + ", ".join(said) if said else "no speed recorded"


def _panel(curves: Curves, name: str, places: list[tuple[int, int]], values: np.ndarray) -> str:
    finite = values[np.isfinite(values)]
    shown = np.quantile(finite, [0.005, 0.995]) if len(finite) > 200 else finite  # a first spike would flatten the rest
    low, high = value_range(shown.tolist())
    room = 0.06 * (high - low)
    plot = Plot(curves.parts, 330, 170, low - room, high + room, tick_label, (52, 12, 10, 26), ticks=4)
    plot.axis(captions=False)
    rows = thin(range(len(places)), PANEL_POINTS)
    with np.errstate(invalid="ignore"):
        mean = np.array([np.nanmean(v) if np.isfinite(v).any() else np.nan for v in values])
    for i in range(len(curves.parts)):
        style = colour(curves.parts, i)
        mine = [t for t in rows if places[t][0] == i]
        if values.shape[1] > 1:
            for k in range(min(values.shape[1], PANEL_SEEDS)):
                plot.path([(*places[t], float(values[t, k])) for t in mine], f"thin {style}")
        plot.path([(*places[t], float(mean[t])) for t in mine], f"mean small-mean {style}")
    last = mean[np.isfinite(mean)][-1:]
    now = f"<b>{number(float(last[0]))}</b>" if len(last) else ""
    return f'<figure class="panel"><figcaption><span>{escape(name)}</span>{now}</figcaption>{plot.svg(name)}</figure>'

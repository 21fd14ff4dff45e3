"""The learning curve."""

from __future__ import annotations

from understudy.evaluate.curves import Curves, Point, interval, thin
from understudy.evaluate.plot import Plot, colour, dot, segment, tick_label, value_range
from understudy.evaluate.report.words import MOST_SEEDS, interval_text, number, percent, when, writer
from understudy.evaluate.switch import measure

MOST_POINTS = 240  # of a line in the chart


def _stretches(curves: Curves) -> list[tuple[str, list[Point], list[tuple[int, float]]]]:
    """The evaluations of each part with their places: (style, points, [(part, x)]).

    The live part begins at the evaluation of the switch; a part that starts from fresh parameters does not."""
    found = []
    for i, part in enumerate(curves.parts):
        points = thin([p for p in curves.points if p.part == i], MOST_POINTS)
        places = [(i, float(p.x)) for p in points]
        if part.unit == "env_steps" and i and found and found[-1][1]:
            points, places = [found[-1][1][-1], *points], [(i, 0.0), *places]
        found.append((colour(curves.parts, i), points, places))
    return found


def section(curves: Curves, base: Curves | None = None) -> str:
    if not curves.points or not curves.parts:
        return ""
    show, what = writer(curves), "Success" if curves.has_success else "Return"
    stretches = _stretches(curves)
    many = len(curves.seeds) > 1
    low, high = 0.0, 1.0
    if not curves.has_success:
        means = [v for p in curves.points for v in p.values.mean(1)]
        means += [float(p.values.mean()) for p in base.points] if base is not None else []
        low, high = value_range(means + [v for _, points, _ in stretches for p in points for v in interval(p.values)])
        low, high = low - 0.05 * (high - low), high + 0.05 * (high - low)
    label = percent if curves.has_success else tick_label
    plot = Plot(curves.parts, 1040, 400, low, high, label, (64, 66, 44, 48))
    plot.axis(captions=True)
    top = curves.best
    level = curves.switch if curves.live else None
    if level is not None and curves.live:
        first = curves.live[0].part
        y = plot.y(float(level.values.mean()))
        plot.items.append(segment(plot.edges[first][0], y, plot.edges[first][1], y, "level"))
    if base is not None:
        place = lambda p: (curves.live[0].part, float(p.env_steps))
        plot.path([(*place(p), float(p.values.mean())) for p in base.points], "mean baseline")
        for p in base.points:
            title = f"baseline {show(float(p.values.mean()))}, {interval_text(base, p)}, after {p.env_steps:,} steps"
            plot.items.append(dot(plot.x(*place(p)), plot.y(float(p.values.mean())), 3, "mark baseline", title))
    for style, points, places in stretches:
        bands = [(*place, *interval(p.values)[1:]) for p, place in zip(points, places)]
        plot.band(bands, f"band {style}")
        if many:
            for k in range(min(len(curves.seeds), MOST_SEEDS)):
                plot.path([(*place, float(p.values[k].mean())) for p, place in zip(points, places)], f"thin {style}")
    for style, points, places in stretches:
        plot.path([(*place, float(p.values.mean())) for p, place in zip(points, places)], f"mean {style}")
        for point, (part, x) in zip(points, places):
            if part != point.part:
                continue  # the switch is drawn once, with the part it ends
            mean = float(point.values.mean())
            seeds = ", ".join(f"seed {s}: {show(v)}" for s, v in zip(curves.seeds, point.values.mean(1)))
            title = f"{show(mean)}, {interval_text(curves, point)}, {when(point, curves)} ({seeds})"
            plot.items.append(dot(plot.x(part, x), plot.y(mean), 3.6, f"mark {style}", title))
    last = curves.last
    x, y = plot.x(last.part, last.x), plot.y(float(last.values.mean()))
    plot.items.append(f'<text x="{x + 9:.1f}" y="{y + 5:.1f}" class="direct">'
                      f"{show(float(last.values.mean()))}</text>")  # fmt: skip
    if top is not None and top is not last and top.values.mean() > last.values.mean():
        x, y = plot.x(top.part, top.x), plot.y(float(top.values.mean()))
        plot.items.append(dot(x, y, 7, "best", f"best: {show(float(top.values.mean()))}, {when(top, curves)}"))
        plot.items.append(f'<text x="{x:.1f}" y="{y + (24 if y < plot.top + 24 else -13):.1f}" class="direct mid">'
                          f"best {show(float(top.values.mean()))}</text>")  # fmt: skip
    _mark_dip(curves, plot)
    drawn = ["thick line: mean of the seeds" if many else "line: the one seed", "dots: evaluations"]
    if many:
        cut = f" (the first {MOST_SEEDS})" if len(curves.seeds) > MOST_SEEDS else ""
        drawn.insert(1, f"thin lines: each seed{cut}")
    drawn.append("shaded: 95% interval")
    if level is not None:
        drawn.append("dashed: level at the switch")
    if base is not None:
        drawn.append("without shade: the baseline, RLPD from scratch")
    chart = plot.svg(f"{what} over the run")
    return f"""<section><h2>{what} while learning</h2>
<figure class="wide">{chart}<figcaption>{" · ".join(drawn)}</figcaption></figure></section>"""


def _mark_dip(curves: Curves, plot: Plot) -> None:
    """A ring around the deepest evaluation after the switch, where it is below the level there."""
    found = measure(curves)
    if found is None or not found["dip"] > 0:
        return
    point = next(p for p in curves.live if p.env_steps - curves.switch.env_steps == found["dip_at"])
    x, y = plot.x(point.part, point.x), plot.y(float(point.values.mean()))
    by = f"−{100 * found['dip']:.0f} points" if curves.has_success else f"−{number(found['dip'])}"
    plot.items.append(dot(x, y, 7, "dip", f"deepest dip: {by}, {when(point, curves)}"))
    below = y < plot.bottom - 26
    plot.items.append(f'<text x="{x:.1f}" y="{y + (23 if below else -13):.1f}" class="direct mid">dip {by}</text>')

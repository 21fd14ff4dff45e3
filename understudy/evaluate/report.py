"""report.html: one page about a run that needs nothing but itself (and the video beside it).

Charts are inline SVG (`plot`), coloured by CSS variables, so that the page follows the reader's light or dark theme,
prints, and has no script. Every text that comes from a file is escaped.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import pathlib
import shlex
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from understudy.errors import CheckpointError
from understudy.evaluate import curves as curves_module
from understudy.evaluate.curves import Curves, Point, interval, thin
from understudy.evaluate.plot import Plot, colour, dot, drawing, escape, round_numbers, segment, tick_label, value_range
from understudy.evaluate.switch import measure
from understudy.run import switch as switches
from understudy.run.baseline import FOLDER as BASELINE

MOST_POINTS = 240  # of a line in a chart
MOST_SEEDS = 16  # drawn one by one; more would be a smear
PANEL_POINTS, PANEL_SEEDS = 150, 8  # the same for a small chart
MOST_METRICS = 9  # small charts

# Numbers of a run that a command needs to name only where they differ from these.
RUN_DEFAULTS = {"batch_size": 256, "n_step": 1, "num_envs": 1, "reward_scale": 1.0, "reward_bias": 0.0, "utd": 1.0,
                "offline_share": 0.5, "replay_capacity": 1_000_000, "eval_every": None, "episodes": 50}  # fmt: skip


def write(run_folder) -> pathlib.Path:
    """Write RUN/report.html from what the run folder holds, complete or not, and return its path.

    Raises:
      CheckpointError: the file could not be written; an earlier report is left as it was."""
    folder = pathlib.Path(run_folder)
    path = folder / "report.html"
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    text = page(folder)
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise CheckpointError(
            f"Could not write {path} ({error.strerror or error}); free space, mend the permissions, or give the folder "
            f"of a run."
        ) from error
    return path


def page(run_folder) -> str:
    """The HTML of a run folder's report."""
    folder = pathlib.Path(run_folder)
    curves = curves_module.read(folder)
    base = _baseline(folder, curves)
    title, lead = _title(curves, folder)
    sections = [
        _missing(curves),
        _headline(curves),
        _learning_curve(curves, base),
        _live(curves),
        _beside(curves, base),
        _watch_and_go_on(curves, folder),
        _training(curves),
        _details(curves),
    ]
    body = "\n".join(s for s in sections if s)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{escape(title)} · understudy</title>
<style>{STYLE}</style>
</head>
<body>
<main>
<header>
<p class="eyebrow">understudy run report <span class="pill">{escape(_state(curves))}</span></p>
<h1>{escape(title)}</h1>
<p class="lead">{lead}</p>
</header>
{body}
<footer>Made by understudy {escape(curves.manifest.get("understudy", ""))} from the files in
<code>{escape(folder)}</code>; every number is computed from
<code>episodes.jsonl</code> and <code>metrics.jsonl</code> there.</footer>
</main>
</body>
</html>
"""


# --- words and numbers ----------------------------------------------------------------------------------------------


def _plural(count: int, word: str) -> str:
    return f"{count:,} {word}{'' if count == 1 else 's'}"


def _percent(value: float) -> str:
    return f"{100 * value:.0f}%"


def _number(value: float) -> str:
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


def _duration(seconds: float) -> str:
    minutes, hours = seconds / 60, seconds / 3600
    if minutes < 1:
        return f"{seconds:.0f} s"
    return f"{minutes:.0f} min" if minutes < 100 else f"{hours:.1f} h"


def _show(curves: Curves) -> Callable[[float], str]:
    """How a success or a return is written."""
    return _percent if curves.has_success else _number


def _range(curves: Curves, point: Point) -> str:
    _, low, high = interval(point.values)
    if not math.isfinite(low):
        return "no interval: some returns are not finite"
    if curves.has_success:
        return f"95% interval {100 * low:.0f} to {100 * high:.0f}%"
    return f"95% interval {_number(low)} to {_number(high)}"


def _when(point: Point, curves: Curves) -> str:
    if point.phase == "start":
        return "before training"
    part = curves.parts[point.part]
    if part.unit == "env_steps":
        return f"after {point.x:,} environment steps"
    return f"after {point.x:,} {point.phase} updates"


def _algorithm(manifest: dict) -> str:
    return manifest.get("algorithm") or manifest.get("object") or "unknown algorithm"


def _title(curves: Curves, folder: pathlib.Path) -> tuple[str, str]:
    """Title (plain) and the sentence under it (HTML)."""
    manifest = curves.manifest
    if not manifest:
        return f"Run {folder.name}", "What was run is not known: the manifest is missing or damaged."
    data, env = manifest.get("dataset"), manifest.get("env")
    title = f"{_algorithm(manifest)} on {env or (data or {}).get('name', 'unknown data')}"
    said, ed = [], "ed" if curves.finished else ""
    for part in curves.parts:
        if part.unit == "env_steps":
            verb = f"improve{ed[1:]}" if said else f"learn{ed}"
            said.append(f"{verb} live for {part.length:,} environment steps")
        elif "retrain" in part.phases:
            said.append(f"retrain{ed} from scratch for {part.length:,} updates on recordings and replay")
        else:
            size = f"{int(data.get('transitions') or 0):,}" if data else ""
            held = f"{size} transitions of {escape(data.get('name'))}" if data else "recordings"
            said.append(f"learn{ed} offline from {held} for {part.length:,} updates")
    each = f", {len(curves.seeds)} seeds" if len(curves.seeds) > 1 else ", one seed"
    time = f"; took {_duration(curves.seconds)}" if curves.seconds else ""
    sentence = ("" if curves.finished else "planned: ") + ", then ".join(said) + each + time + "."
    return title, sentence[:1].upper() + sentence[1:]


def _state(curves: Curves) -> str:
    if not curves.manifest:
        return "unknown state"
    if curves.finished:
        return "finished"
    if not curves.updates and not curves.env_steps:
        return "not started"
    return f"unfinished: {curves.updates:,} updates, {curves.env_steps:,} environment steps so far"


# --- headline -------------------------------------------------------------------------------------------------------


def _missing(curves: Curves) -> str:
    if not curves.notes:
        return ""
    rows = "".join(f"<li>{escape(note)}</li>" for note in curves.notes)
    return f'<section class="notes"><h2>What is missing</h2><ul>{rows}</ul></section>'


def _headline(curves: Curves) -> str:
    last, before = curves.last, curves.switch
    if last is None:
        why = (
            "The run names no environment, so nothing could be played: the training metrics below are all there is."
            if curves.manifest and not curves.manifest.get("env")
            else "No complete evaluation is recorded."
        )
        return f'<section class="card"><h2>Not evaluated</h2><p>{why}</p></section>'
    what = "Success" if curves.has_success else "Return"
    shown = [(before, "before", "at the switch, offline only" if before and before.phase == "offline" else "untrained")]
    name = {"start": "untrained", "offline": "offline only", "retrain": "after retraining"}.get(last.phase)
    if before is None or before is last:
        shown = []
    elif not curves.live:  # an untrained policy, then an offline one
        shown = [(before, "before", "untrained" if before.phase == "start" else "offline")]
    shown.append((last, "after", name or f"after {last.x:,} live steps"))
    numbers = []
    for point, style, label in shown:
        numbers.append(
            f'<div class="big {style}"><span class="label">{what} {escape(label)}</span>'
            f'<span class="value">{_show(curves)(float(point.values.mean()))}</span>'
            f'<span class="range">{_range(curves, point)}</span></div>'
        )
    joined = '<span class="arrow" aria-hidden="true">→</span>'.join(numbers)
    score = ""
    if last.score is not None:
        score = f" Normalised score of the benchmark {_number(float(last.score.mean()))} (0 random, 100 expert)."
    change = ""
    if len(shown) == 2 and curves.live:
        difference = float(last.values.mean() - before.values.mean())
        size = f"{abs(100 * difference):.0f} points" if curves.has_success else _number(abs(difference))
        change = f"Since the switch: {'+' if difference >= 0 else '−'}{size}. "
    return f"""<section class="card headline" aria-label="headline">
<div class="numbers">{joined}</div>
{_bars(curves, shown)}
<p class="small">{change}{_best(curves)}{score}{_no_success(curves)}</p>
<p class="small">{_protocol(curves)}</p>
</section>"""


def _no_success(curves: Curves) -> str:
    return "" if curves.has_success else " The task defines no success; returns are undiscounted sums of reward."


def _best(curves: Curves) -> str:
    last, top, show = curves.last, curves.best, _show(curves)
    mean = float(last.values.mean())
    if top is None or len(curves.points) < 2:
        return f"Last evaluation: {show(mean)}; it is the only one."
    if top.values.mean() <= mean:
        return f"Last evaluation: {show(mean)}, also the best of {len(curves.points)}."
    return (
        f"Last evaluation: {show(mean)}; best of {len(curves.points)}: {show(float(top.values.mean()))} "
        f"{_when(top, curves)} (picked with hindsight, so optimistic)."
    )


def _protocol(curves: Curves) -> str:
    protocol, last = curves.manifest.get("protocol") or {}, curves.last
    seeds, episodes = last.returns.shape
    starts = f" (evaluation seed {escape(protocol['env_seed'])})" if "env_seed" in protocol else ""
    played = "the same starts at every evaluation, in environments of their own, greedy actions"
    if seeds > 1:
        over = "bootstrap over seeds, then episodes" + ("; with so few seeds it is rather too narrow" * (seeds < 5))
    elif curves.has_success:
        over = "Wilson, over the episodes of this one seed: another seed may differ more"
    else:
        over = "bootstrap over the episodes of this one seed: another seed may differ more"
    who = f"each of {seeds} seeds" if seeds > 1 else "the one seed"
    return f"Protocol: {_plural(episodes, 'episode')} for {who}, {played}{starts}. Intervals: {over}."


def _bars(curves: Curves, shown: Sequence[tuple[Point, str, str]]) -> str:
    """A bar with a whisker (95% interval) and a dot for each seed."""
    width, row, left, right = 420, 46, 16, 22
    height = row * len(shown) + 26
    low, high = 0.0, 1.0
    if not curves.has_success:
        low, high = value_range([v for p, _, _ in shown for v in (*p.values.mean(1), *interval(p.values))] + [0.0])
    place = lambda v: left + (width - left - right) * (min(max(v, low), high) - low) / (high - low)
    out = []
    for tick in round_numbers(low, high, 5):
        label = _percent(tick) if curves.has_success else tick_label(tick)
        out.append(segment(place(tick), 4, place(tick), height - 20, "grid"))
        out.append(f'<text x="{place(tick):.1f}" y="{height - 5}" class="tick mid">{label}</text>')
    for i, (point, style, label) in enumerate(shown):
        y = 8 + i * row
        mean, lo, hi = interval(point.values)
        base, end = place(0.0), place(mean)
        out.append(f'<rect x="{min(base, end):.1f}" y="{y}" width="{abs(end - base):.1f}" height="24" rx="3" '
                   f'class="bar {style}"><title>{escape(label)}: {_show(curves)(mean)}</title></rect>')  # fmt: skip
        if math.isfinite(lo):
            out.append(segment(place(lo), y + 12, place(hi), y + 12, "whisker"))
            out += [segment(place(v), y + 6, place(v), y + 18, "whisker") for v in (lo, hi)]
        if len(point.values) > 1:
            for seed, value in zip(curves.seeds, point.values.mean(1)):
                out.append(dot(place(value), y + 32, 3.5, f"seed {style}",
                                f"seed {seed}, {label}: {_show(curves)(value)}"))  # fmt: skip
    note = "bar: mean · whisker: 95% interval" + (" · dots: seeds" if len(shown[0][0].values) > 1 else "")
    return f'<figure class="bars">{drawing(width, height, out, "bars")}<figcaption>{note}</figcaption></figure>'


# --- charts ---------------------------------------------------------------------------------------------------------


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


def _baseline(folder: pathlib.Path, curves: Curves) -> Curves | None:
    """The run in RUN/baseline, where it was asked for and has been evaluated."""
    if not curves.manifest.get("baseline") or not curves.live:
        return None
    base = curves_module.read(folder / BASELINE)
    return base if base.points and base.has_success == curves.has_success else None


def _learning_curve(curves: Curves, base: Curves | None = None) -> str:
    if not curves.points or not curves.parts:
        return ""
    show, what = _show(curves), "Success" if curves.has_success else "Return"
    stretches = _stretches(curves)
    many = len(curves.seeds) > 1
    low, high = 0.0, 1.0
    if not curves.has_success:
        means = [v for p in curves.points for v in p.values.mean(1)]
        means += [float(p.values.mean()) for p in base.points] if base is not None else []
        low, high = value_range(means + [v for _, points, _ in stretches for p in points for v in interval(p.values)])
        low, high = low - 0.05 * (high - low), high + 0.05 * (high - low)
    label = _percent if curves.has_success else tick_label
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
            title = f"baseline {show(float(p.values.mean()))}, {_range(base, p)}, after {p.env_steps:,} steps"
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
            title = f"{show(mean)}, {_range(curves, point)}, {_when(point, curves)} ({seeds})"
            plot.items.append(dot(plot.x(part, x), plot.y(mean), 3.6, f"mark {style}", title))
    last = curves.last
    x, y = plot.x(last.part, last.x), plot.y(float(last.values.mean()))
    plot.items.append(f'<text x="{x + 9:.1f}" y="{y + 5:.1f}" class="direct">'
                      f"{show(float(last.values.mean()))}</text>")  # fmt: skip
    if top is not None and top is not last and top.values.mean() > last.values.mean():
        x, y = plot.x(top.part, top.x), plot.y(float(top.values.mean()))
        plot.items.append(dot(x, y, 7, "best", f"best: {show(float(top.values.mean()))}, {_when(top, curves)}"))
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
    by = f"−{100 * found['dip']:.0f} points" if curves.has_success else f"−{_number(found['dip'])}"
    plot.items.append(dot(x, y, 7, "dip", f"deepest dip: {by}, {_when(point, curves)}"))
    below = y < plot.bottom - 26
    plot.items.append(f'<text x="{x:.1f}" y="{y + (23 if below else -13):.1f}" class="direct mid">dip {by}</text>')


def _live(curves: Curves) -> str:
    found = measure(curves)
    if found is None:
        return ""
    points = lambda v: f"{100 * v:.0f} points" if curves.has_success else _number(v)
    name = "success" if curves.has_success else "return"
    dip = f"−{points(found['dip'])}" if found["dip"] > 0 else "none"
    at = f"{found['dip_at']:,} steps after the switch" if found["dip"] > 0 else "never below the level at the switch"
    back = {None: "not yet", 0: "at once"}.get(found["recovered"], f"{found['recovered'] or 0:,} steps")
    tiles = [
        ("Deepest dip", dip, at),
        ("Recovered after", back, "first evaluation back at the level of the switch"),
        (f"Mean {name} while live", _show(curves)(found["area"]), "area under the curve after the switch ÷ its steps"),
    ]
    if found["regret"] is not None:
        tiles.append(("Regret", _number(found["regret"]), "1 − mean success of the episodes played to learn"))
    if found["q_before"] is not None and found["q_after"] is not None:
        scale = f"{_number(found['q_before'])} → {_number(found['q_after'])}"
        about = f"critic's mean value, end of offline and first live evaluation; {_number(found['q_final'])} at the end"
        tiles.append(("Q scale", scale, about))
    cells = "".join(
        f'<div class="tile"><span class="label">{escape(label)}</span><span class="figure">{escape(value)}</span>'
        f'<span class="range">{escape(about)}</span></div>'
        for label, value, about in tiles
    )
    how = curves.manifest.get("switch")
    how = f'<p class="small">How it went live: <code>{escape(how)}</code></p>' if how else ""
    return (f'<section><h2>After the switch</h2>{how}<div class="tiles">{cells}</div>'
            f"{_by_seed(curves, found)}</section>")  # fmt: skip


def _beside(curves: Curves, base: Curves | None) -> str:
    """The run and its baseline, number by number."""
    if base is None:
        return ""
    show, rows = _show(curves), ""
    for name, one in (("this run", curves), (f"{_algorithm(base.manifest)} from scratch", base)):
        found, last = measure(one) or {}, one.last
        online = next((p for p in one.manifest.get("phases") or () if p.get("name") == "online"), {})
        settings = one.manifest.get("settings") or {}
        cells = (
            name, show(float(last.values.mean())), _range(one, last).removeprefix("95% interval "),
            show(found["area"]) if found else "", _number(found["regret"]) if found.get("regret") is not None else "",
            f"{one.env_steps:,}", _value(online.get("utd")), _value(settings.get("critic.ensemble")),
        )  # fmt: skip
        rows += "<tr>" + "".join(f"<td>{escape(c)}</td>" for c in cells) + "</tr>"
    names = ("", "last", "95% interval", "mean live", "regret", "live steps", "updates per step", "critics")
    state = "" if base.finished else " It is unfinished: go on with this run's resume."
    return (f'<section><h2>Beside the baseline</h2><div class="block">{_grid(names, rows)}</div><p class="small">'
            f"The baseline learns from the same data without pretraining, half of each batch from them.{state}</p>"
            f"</section>")  # fmt: skip


def _scale(found: dict) -> str:
    """The critic's values before and after the switch, as far as they were recorded."""
    return " → ".join(_number(found[k]) for k in ("q_before", "q_after", "q_final") if found[k] is not None)


def _by_seed(curves: Curves, found: dict) -> str:
    """The same numbers of each seed, a line each."""
    if len(curves.seeds) < 2:
        return ""
    show, rows = _show(curves), ""
    for seed, one in list(zip(curves.seeds, found["by_seed"]))[:MOST_SEEDS]:
        back = {None: "not yet", 0: "at once"}.get(one["recovered"], f"{one['recovered'] or 0:,} steps")
        regret = "" if one["regret"] is None else _number(one["regret"])
        cells = (seed, show(one["offline"]), show(one["dip"]), back, show(one["area"]), regret, show(one["final"]))
        rows += "<tr>" + "".join(f"<td>{escape(c)}</td>" for c in (*cells, _scale(one))) + "</tr>"
    names = ("seed", "at the switch", "deepest dip", "recovered after", "mean live", "regret", "last", "Q scale")
    return f'<div class="block">{_grid(names, rows)}</div>'


# --- training metrics -----------------------------------------------------------------------------------------------


def _chosen(names: Iterable[str]) -> list[str]:
    """The metrics worth a small chart: losses and values first, then the rest in order."""
    first = ("critic/loss", "actor/loss", "critic/q", "critic/target", "v/loss", "critic/v/loss", "actor/imitation")
    names = list(names)
    order = [n for n in first if n in names]
    order += [n for n in names if n.endswith("/loss") and n not in order]
    order += [n for n in names if n.endswith("/q") and n not in order]
    return order + [n for n in names if n not in order]


def _training(curves: Curves) -> str:
    metrics = curves.metrics
    if not metrics.phases or not curves.parts:
        return ""
    names = _chosen(n for n, v in metrics.values.items() if not np.isnan(v).all())
    panels = [(n, metrics.values[n]) for n in names[: MOST_METRICS - 2]]
    for name, values in list(metrics.episodes.items())[-1:]:  # success where there is one, else the return
        panels.append((f"{name} of training episodes, running mean", _running(values)[:, None]))
    speed = curves_module.rates(metrics)
    if np.isfinite(speed).any():
        panels.append(("updates per second", speed[:, None]))
    if not panels:
        return ""
    counters = zip(metrics.phases, metrics.updates.tolist(), metrics.env_steps.tolist())
    places = [curves.locate(*c) for c in counters]
    charts = "".join(_panel(curves, name, places, values) for name, values in panels)
    left_out = len(names) - len(names[: MOST_METRICS - 2])
    more = f"{_plural(left_out, 'more metric')} in metrics.jsonl." if left_out > 0 else ""
    seeds = "thin lines: each seed; " if len(curves.seeds) > 1 else ""
    return f"""<section><h2>Training metrics</h2><div class="panels">{charts}</div>
<p class="small">Means over about a second each, along the same axis as above; {seeds}{_rates_note(curves, speed)}.
{more}</p></section>"""


def _running(values: np.ndarray, width: int = 25) -> np.ndarray:
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
    now = f"<b>{_number(float(last[0]))}</b>" if len(last) else ""
    return f'<figure class="panel"><figcaption><span>{escape(name)}</span>{now}</figcaption>{plot.svg(name)}</figure>'


# --- what to do next ------------------------------------------------------------------------------------------------


def _watch_and_go_on(curves: Curves, folder: pathlib.Path) -> str:
    film = folder / "video.mp4"
    video = ""
    if film.is_file():
        video = (
            '<section class="film"><h2>The final policy</h2>'
            '<video controls muted loop playsinline preload="metadata" src="video.mp4">video.mp4</video></section>'
        )
    rows = "".join(
        f"<dt>{escape(what)}</dt><dd><pre>{escape(command)}</pre></dd>" for what, command in _commands(curves, folder)
    )
    go_on = f"<section><h2>How to go on</h2><dl>{rows}</dl></section>"
    return f'<div class="{"two" if video else "one"}">{video}{go_on}</div>'


def _commands(curves: Curves, folder: pathlib.Path) -> list[tuple[str, str]]:
    """(What for, the exact command)."""
    manifest, run = curves.manifest, str(folder)
    shell = _shell
    if not manifest:
        return [("Start a run anew", "understudy train ALGORITHM DATASET --env ID")]
    found = []
    env, data = manifest.get("env"), manifest.get("dataset")
    live = sum(int(p.get("env_steps") or 0) for p in manifest.get("phases", ()) if p.get("name") == "online")
    if not curves.finished:
        found.append(("Finish this run", shell("understudy", "resume", run)))
    if env and curves.finished:
        film = folder / "video.mp4"
        found.append(("Play fresh episodes and film some", shell("understudy", "evaluate", run, "--episodes", 200,
                                                                 "--video", film)))  # fmt: skip
        if (manifest.get("phases") or [{}])[-1].get("name") != "retrain":
            total = 2 * live or 20_000
            what = f"Learn on, to {total:,} live steps in all" if live else f"Improve it live, {total:,} steps"
            found.append((what, shell("understudy", "resume", run, "--online", total)))
    if manifest.get("algorithm"):
        source = data and (data.get("given") or data.get("source") or data.get("name"))
        words = ["understudy", "train", manifest["algorithm"], *([source] if source else [])]
        stage = (manifest.get("plan") or {}).get("eval_env")
        for flag, value in (("--env", env), ("--eval-env", stage), ("--preset", manifest.get("preset"))):
            words += [flag, value] if value else []
        phases, plan = manifest.get("phases", ()), manifest.get("plan") or {}
        live_phase = next((p for p in phases if p.get("name") == "online"), {})
        layers = _usual(manifest)
        switch, expected = switches.said_by(phases), switches.resolve({"offline_share": switches.SHARE}, *layers)
        usual, settings = RUN_DEFAULTS | {"offline_share": expected.share}, {"offline": {}, "online": {}}
        usual |= {"warmup": expected.warmup} if expected.warmup else {}
        for layer in switches.without(layers, "switch", "offline_share", "warmup"):
            for name, known in settings.items():
                known |= layer.pop(f"{name}_settings", {})
            usual |= layer
        # Options one by one say the usual; what they cannot say takes the whole switch.
        whole = bool(live_phase) and (switch.end, switch.reset, switch.successes) != (
            expected.end, expected.reset, expected.successes if switch.retrain else None)  # fmt: skip
        units = {"offline": "updates", "warmup": "env_steps", "online": "env_steps", "retrain": "updates"}
        for name, unit in units.items():
            length = sum(int(p.get(unit) or 0) for p in phases if p.get("name") == name)
            if not (whole and length and name in ("warmup", "retrain")):
                words += [f"--{name}", length] if length or name in usual or (name == "offline" and data) else []
        words += ["--switch", switch] if whole else []
        chosen = {k: plan.get(k, v) for k, v in RUN_DEFAULTS.items()}
        chosen |= {k: live_phase.get(k, usual[k]) for k in ("utd", "offline_share")}
        chosen = {k: v for k, v in chosen.items() if not (whole and k == "offline_share")}
        words += [w for k, v in chosen.items() if v != usual[k] for w in (f"--{k.replace('_', '-')}", v)]
        for phase in (p for p in phases if p.get("name") in settings):
            name, own = phase["name"], dict(map(tuple, phase.get("settings") or ()))
            words += [w for k, v in own.items() if v != settings[name].get(k) for w in (f"--{name}.{k}", v)]
        words += ["--baseline"] if manifest.get("baseline") else []
        if (bounds := (data or {}).get("action_range")) and not any(isinstance(b, list) for b in bounds):
            words += ["--action-range", *bounds]
        words += ["--seeds", 3, "--seed", max([-1, *(s for s in curves.seeds if isinstance(s, int))]) + 1]
        for key, value in (manifest.get("overrides") or {}).items():
            words += [f"--{key}", *(value if isinstance(value, list) else [value])]
        found.append(("Train anew with three other seeds", shell(*words)))
    if (folder / "tensorboard").is_dir():
        found.append(("Look at the metrics in TensorBoard", shell("tensorboard", "--logdir", folder / "tensorboard")))
    lines = ["import understudy"]
    if curves.finished:
        lines.append(f"run = understudy.load({run!r})")
        lines.append("actions = run.policy(observations)  # [B, ...] -> [B, A] in [-1, 1]")
    else:
        lines.append(f"run = understudy.resume({run!r})")
    if env and curves.finished:
        lines.append("run.evaluate(episodes=200)")
    found.append(("In Python", "\n".join(lines)))
    return found


def _usual(manifest: dict) -> list[dict]:
    """What its recipe and its preset bring to a run, where this release still has them."""
    from understudy import presets, registry
    from understudy.errors import SettingsError

    found = [registry.run_of(manifest["algorithm"])]
    with contextlib.suppress(SettingsError):
        found += [presets.get(manifest["preset"]).run_for(manifest["algorithm"])] if manifest.get("preset") else []
    return found


def _shell(*words) -> str:
    """A command to paste; a long one goes on over lines, broken before its options."""
    groups: list[list[str]] = [[]]
    for word in map(str, words):
        if word.startswith("--"):
            groups.append([])
        groups[-1].append(word)
    lines = [""]
    for text in (shlex.join(g) for g in groups):
        if lines[-1] and len(lines[-1]) + len(text) > 64:
            lines.append(f"    {text}")
        else:
            lines[-1] = f"{lines[-1]} {text}".strip() if len(lines) == 1 else f"{lines[-1]} {text}"
    return " \\\n".join(lines)


# --- details --------------------------------------------------------------------------------------------------------


def _details(curves: Curves) -> str:
    manifest = curves.manifest
    if not manifest:
        return ""
    changed = manifest.get("overrides") or {}
    settings = [(name, value, name in changed) for name, value in sorted((manifest.get("settings") or {}).items())]
    planned = {k: v for k, v in (manifest.get("plan") or {}).items() if k != "evaluate"}
    blocks = [
        _block("Settings", _table((n, _value(v) + (" ●" if own else "")) for n, v, own in settings),
               "settings", "● given by the user" if changed else ""),
        _block("Run", _table((k, _value(v)) for k, v in planned.items()), "settings"),
        _block("Data", _table(_data(manifest)), ""),
        _block("Phases", _phases(manifest), ""),
        _block("Resumes", _resumes(manifest), ""),
        _block("Versions", _table(_versions(manifest)), ""),
    ]  # fmt: skip
    return f'<section class="details"><h2>Details</h2>{"".join(blocks)}</section>'


def _block(title: str, content: str, style: str, note: str = "") -> str:
    small = f' <span class="small">{escape(note)}</span>' if note else ""
    return f'<div class="block {style}"><h3>{escape(title)}{small}</h3>{content}</div>' if content else ""


def _value(value) -> str:
    if isinstance(value, list | tuple):
        return " ".join(_value(v) for v in value) or "none"
    if value is None:
        return "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _table(rows: Iterable[tuple[str, object]]) -> str:
    body = "".join(f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in rows)
    return f"<table>{body}</table>" if body else ""


def _data(manifest: dict) -> list[tuple[str, object]]:
    data = manifest.get("dataset")
    rows: list[tuple[str, object]] = []
    if data:
        size = f"{data.get('transitions', 0):,} transitions, {data.get('episodes', 0):,} episodes"
        rows += [("data set", data.get("name")), ("source", data.get("source")), ("size", size)]
        rows += [("SHA-256", data.get("sha256"))] + [("note", n) for n in data.get("notes") or ()]
    else:
        rows.append(("data set", "none: learned live only"))
    rows.append(("environment", manifest.get("env") or "none"))
    if stage := (manifest.get("plan") or {}).get("eval_env"):
        rows.append(("evaluated in", stage))
    rows.append(("seeds", _value(manifest.get("seeds") or [])))
    return rows


def _phases(manifest: dict) -> str:
    rows = ""
    for p in manifest.get("phases") or ():
        share = _value(p.get("offline_share"))
        if p.get("anneal"):
            share += f" → {_value(p['anneal'][0])} over {p['anneal'][1]:,} steps"
        share += f", successes {_value(p['successes'])}" if p.get("successes") else ""
        fresh = ["everything"] if p.get("restart") else p.get("reset") or ()
        own = " ".join(f"{name} {_value(value)}" for name, value in p.get("settings") or ())
        cells = (p.get("name"), f"{int(p.get('updates') or 0):,}", f"{int(p.get('env_steps') or 0):,}",
                 _value(p.get("utd")), share, ", ".join(fresh), own)  # fmt: skip
        rows += "<tr>" + "".join(f"<td>{escape(c)}</td>" for c in cells) + "</tr>"
    names = ("phase", "updates", "environment steps", "updates per step", "data share", "starts afresh", "own settings")
    return _grid(names, rows)


def _resumes(manifest: dict) -> str:
    rows = "".join(
        "<tr><td>{}</td><td>{:,}</td><td>{:,}</td><td>{}</td></tr>".format(
            escape(r.get("at")), int(r.get("updates") or 0), int(r.get("env_steps") or 0),
            escape(json.dumps(r.get("changed")) if r.get("changed") else "nothing"))
        for r in manifest.get("resumes") or ()
    )  # fmt: skip
    return _grid(("when", "at updates", "at environment steps", "changed"), rows)


def _grid(names: Iterable[str], rows: str) -> str:
    head = "".join(f"<th>{name}</th>" for name in names)
    return f'<table class="grid"><tr>{head}</tr>{rows}</table>' if rows else ""


def _versions(manifest: dict) -> list[tuple[str, object]]:
    versions = {"understudy": manifest.get("understudy")} | (manifest.get("versions") or {})
    rows: list[tuple[str, object]] = [(k, v) for k, v in versions.items() if v]
    rows += [(k, manifest[k]) for k in ("platform", "created") if manifest.get(k)]
    if manifest.get("command"):
        rows.append(("command", shlex.join(str(w) for w in manifest["command"])))
    return rows


STYLE = """
:root{color-scheme:light dark;--bg:#fff;--panel:#f5f6f8;--ink:#161b22;--muted:#5a6473;--line:#dde1e7;--grid:#e9ecf0;
--before:#7c8798;--after:#0b67c2;--warn:#9a5b00;--warn-bg:#fff6e5}
@media (prefers-color-scheme:dark){:root{--bg:#0f1319;--panel:#181e26;--ink:#e7ebf1;--muted:#9da8b7;--line:#2d3641;
--grid:#222a34;--before:#98a4b5;--after:#62a9ff;--warn:#f0b860;--warn-bg:#2a2111}}
@media print{:root{color-scheme:light;--bg:#fff;--panel:#fff;--ink:#000;--muted:#444;--line:#bbb;--grid:#e4e4e4;
--before:#6c7686;--after:#0b57a8;--warn:#7a4800;--warn-bg:#fff}}
*{box-sizing:border-box}
body{margin:0;background:var(--bg);color:var(--ink);font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,
"Helvetica Neue",Arial,sans-serif;-webkit-text-size-adjust:100%}
main{max-width:1080px;margin:0 auto;padding:28px 20px 40px}
h1{font-size:27px;line-height:1.2;margin:4px 0 6px;letter-spacing:-.01em;overflow-wrap:anywhere}
h2{font-size:17px;margin:0 0 10px}h3{font-size:14px;margin:0 0 6px}
section{margin:26px 0 0}p{margin:0}
.eyebrow{color:var(--muted);font-size:13px}.pill{border:1px solid var(--line);border-radius:99px;padding:1px 9px;
margin-left:6px;font-size:12px}
.lead{color:var(--muted);max-width:80ch;overflow-wrap:anywhere}
.card{background:var(--panel);border:1px solid var(--line);border-radius:10px;padding:20px 22px}
.headline{display:grid;grid-template-columns:auto minmax(260px,1fr);gap:8px 36px;align-items:center}
.headline p{grid-column:1/-1}.bars{max-width:500px}
.numbers{display:flex;align-items:center;gap:22px;flex-wrap:wrap}
.big,.tile{display:flex;flex-direction:column}
.label{font-size:13px;color:var(--muted)}.range{font-size:12.5px;color:var(--muted)}
.value{font-size:54px;line-height:1.08;font-weight:680;letter-spacing:-.02em;font-variant-numeric:tabular-nums}
.big.before .value{color:var(--before)}.big.after .value{color:var(--after)}
.arrow{font-size:30px;color:var(--muted)}
.small{font-size:13px;color:var(--muted);font-weight:400}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(180px,1fr));gap:12px;margin:8px 0 14px}
.tile{background:var(--panel);border:1px solid var(--line);border-radius:8px;padding:12px 14px}
.figure{font-size:23px;font-weight:640;line-height:1.35;font-variant-numeric:tabular-nums}
.panels{display:grid;grid-template-columns:repeat(auto-fill,minmax(290px,1fr));gap:14px 18px;margin-bottom:6px}
figure{margin:0}figcaption{font-size:12.5px;color:var(--muted)}
.panel figcaption{display:flex;justify-content:space-between;gap:8px;color:var(--ink);font-size:13px;
overflow-wrap:anywhere}
.panel figcaption b{font-weight:600;font-variant-numeric:tabular-nums}
.wide{overflow-x:auto}.wide svg{min-width:620px}
svg{display:block;width:100%;height:auto;font-family:inherit}
svg text{fill:var(--muted);font-size:12px;font-variant-numeric:tabular-nums}
.mid{text-anchor:middle}.end{text-anchor:end}.start{text-anchor:start}
svg .caption{font-size:12.5px}svg .phase{font-size:12.5px;fill:var(--ink)}
svg .switch-label{font-size:12.5px;font-weight:650;fill:var(--ink)}
svg .direct{font-size:14px;font-weight:650;fill:var(--ink);paint-order:stroke;stroke:var(--bg);stroke-width:4px;
stroke-linejoin:round}
.grid{stroke:var(--grid)}.frame{stroke:var(--line)}.switch{stroke:var(--ink);stroke-width:1.4}
.phase-end{stroke:var(--muted);stroke-dasharray:2 4}.level{stroke:var(--before);stroke-dasharray:6 5}
.whisker{stroke:var(--ink);stroke-width:1.6}
.bar.before{fill:var(--before);fill-opacity:.75}.bar.after{fill:var(--after);fill-opacity:.85}
.seed.before{fill:var(--before)}.seed.after{fill:var(--after)}
polyline{fill:none;stroke-linejoin:round;stroke-linecap:round}
.mean{stroke-width:2.8}.small-mean{stroke-width:1.7}.thin{stroke-width:1.1;stroke-opacity:.45}
polyline.before{stroke:var(--before)}polyline.after{stroke:var(--after)}
polyline.baseline{stroke:var(--warn);stroke-width:1.9}.mark.baseline{fill:var(--warn)}
.band{fill-opacity:.14}.band.before{fill:var(--before)}.band.after{fill:var(--after)}
.mark.before{fill:var(--before)}.mark.after{fill:var(--after)}
.best{fill:none;stroke:var(--ink);stroke-width:1.4}.dip{fill:none;stroke:var(--warn);stroke-width:1.8}
.notes{background:var(--warn-bg);border:1px solid var(--warn);border-radius:8px;padding:12px 18px}
.notes h2{font-size:15px;margin:0;color:var(--warn)}.notes ul{margin:4px 0 0;padding-left:18px}
.two{display:grid;grid-template-columns:minmax(0,1fr) minmax(0,1.25fr);gap:28px}
video{width:100%;border-radius:8px;background:#000;display:block}
dl{margin:0}dt{font-size:13px;color:var(--muted);margin-top:8px}dt:first-child{margin-top:0}dd{margin:2px 0 0}
pre,code{font:12.5px/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace}
pre{margin:0;background:var(--panel);border:1px solid var(--line);border-radius:6px;padding:7px 10px;
white-space:pre-wrap;overflow-wrap:anywhere}
code{overflow-wrap:anywhere}
.block{margin:0 0 18px;overflow-x:auto}
table{border-collapse:collapse;font-size:13px;width:100%}
th{text-align:left;font-weight:400;color:var(--muted);padding:2px 12px 2px 0;vertical-align:top;white-space:nowrap}
td{padding:2px 0;overflow-wrap:anywhere;font-variant-numeric:tabular-nums}
table:not(.grid) th{width:1%}
.grid th,.grid td{padding:3px 14px 3px 0;border-bottom:1px solid var(--line);width:auto}
.settings table,.settings tbody{display:block}
.settings tbody{columns:3 250px;column-gap:28px}
.settings tr{display:flex;justify-content:space-between;gap:10px;break-inside:avoid;
border-bottom:1px solid var(--grid)}
.settings th{width:auto!important;white-space:normal;overflow-wrap:anywhere}.settings td{text-align:right}
footer{margin-top:28px;padding-top:12px;border-top:1px solid var(--line);font-size:12.5px;color:var(--muted)}
@media screen and (max-width:760px){.headline,.two{grid-template-columns:minmax(0,1fr)}.value{font-size:42px}
h1{font-size:22px}.arrow{display:none}}
@page{margin:12mm}
@media print{body{zoom:.7}main{max-width:none;padding:0}section,.tile,.panel,.block,tr{break-inside:avoid}
.details{break-inside:auto}.film{display:none}.two{display:block}section{margin-top:20px}
*{print-color-adjust:exact;-webkit-print-color-adjust:exact}}
"""

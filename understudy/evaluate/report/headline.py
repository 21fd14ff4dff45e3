"""The top of a report: what was run, how it ended, and how sure that is."""

from __future__ import annotations

import math
import pathlib
from collections.abc import Sequence

from understudy.evaluate.curves import Curves, Point, interval
from understudy.evaluate.plot import dot, drawing, escape, round_numbers, segment, tick_label, value_range
from understudy.evaluate.report.words import (
    algorithm_of,
    duration,
    interval_text,
    number,
    percent,
    plural,
    when,
    writer,
)


def title(curves: Curves, folder: pathlib.Path) -> tuple[str, str]:
    """Title (plain) and the sentence under it (HTML)."""
    manifest = curves.manifest
    if not manifest:
        return f"Run {folder.name}", "What was run is not known: the manifest is missing or damaged."
    data, env = manifest.get("dataset"), manifest.get("env")
    title = f"{algorithm_of(manifest)} on {env or (data or {}).get('name', 'unknown data')}"
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
    time = f"; took {duration(curves.seconds)}" if curves.seconds else ""
    sentence = ("" if curves.finished else "planned: ") + ", then ".join(said) + each + time + "."
    return title, sentence[:1].upper() + sentence[1:]


def state(curves: Curves) -> str:
    if not curves.manifest:
        return "unknown state"
    if curves.finished:
        return "finished"
    if not curves.updates and not curves.env_steps:
        return "not started"
    return f"unfinished: {curves.updates:,} updates, {curves.env_steps:,} environment steps so far"


def missing(curves: Curves) -> str:
    if not curves.notes:
        return ""
    rows = "".join(f"<li>{escape(note)}</li>" for note in curves.notes)
    return f'<section class="notes"><h2>What is missing</h2><ul>{rows}</ul></section>'


def section(curves: Curves) -> str:
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
            f'<span class="value">{writer(curves)(float(point.values.mean()))}</span>'
            f'<span class="range">{interval_text(curves, point)}</span></div>'
        )
    joined = '<span class="arrow" aria-hidden="true">→</span>'.join(numbers)
    score = ""
    if last.score is not None:
        score = f" Normalised score of the benchmark {number(float(last.score.mean()))} (0 random, 100 expert)."
    change = ""
    if len(shown) == 2 and curves.live:
        difference = float(last.values.mean() - before.values.mean())
        size = f"{abs(100 * difference):.0f} points" if curves.has_success else number(abs(difference))
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
    last, top, show = curves.last, curves.best, writer(curves)
    mean = float(last.values.mean())
    if top is None or len(curves.points) < 2:
        return f"Last evaluation: {show(mean)}; it is the only one."
    if top.values.mean() <= mean:
        return f"Last evaluation: {show(mean)}, also the best of {len(curves.points)}."
    return (
        f"Last evaluation: {show(mean)}; best of {len(curves.points)}: {show(float(top.values.mean()))} "
        f"{when(top, curves)} (picked with hindsight, so optimistic)."
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
    return f"Protocol: {plural(episodes, 'episode')} for {who}, {played}{starts}. Intervals: {over}."


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
        label = percent(tick) if curves.has_success else tick_label(tick)
        out.append(segment(place(tick), 4, place(tick), height - 20, "grid"))
        out.append(f'<text x="{place(tick):.1f}" y="{height - 5}" class="tick mid">{label}</text>')
    for i, (point, style, label) in enumerate(shown):
        y = 8 + i * row
        mean, lo, hi = interval(point.values)
        base, end = place(0.0), place(mean)
        out.append(f'<rect x="{min(base, end):.1f}" y="{y}" width="{abs(end - base):.1f}" height="24" rx="3" '
                   f'class="bar {style}"><title>{escape(label)}: {writer(curves)(mean)}</title></rect>')  # fmt: skip
        if math.isfinite(lo):
            out.append(segment(place(lo), y + 12, place(hi), y + 12, "whisker"))
            out += [segment(place(v), y + 6, place(v), y + 18, "whisker") for v in (lo, hi)]
        if len(point.values) > 1:
            for seed, value in zip(curves.seeds, point.values.mean(1)):
                out.append(dot(place(value), y + 32, 3.5, f"seed {style}",
                                f"seed {seed}, {label}: {writer(curves)(value)}"))  # fmt: skip
    note = "bar: mean · whisker: 95% interval" + (" · dots: seeds" if len(shown[0][0].values) > 1 else "")
    return f'<figure class="bars">{drawing(width, height, out, "bars")}<figcaption>{note}</figcaption></figure>'

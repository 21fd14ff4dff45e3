"""What became of the policy after the switch to live learning, and beside its baseline."""

from __future__ import annotations

import pathlib

from understudy.evaluate import curves as curves_module
from understudy.evaluate.curves import Curves
from understudy.evaluate.plot import escape
from understudy.evaluate.report.words import MOST_SEEDS, algorithm_of, grid, interval_text, number, value_text, writer
from understudy.evaluate.switch import measure
from understudy.run.baseline import FOLDER as BASELINE


def baseline_of(folder: pathlib.Path, curves: Curves) -> Curves | None:
    """The run in RUN/baseline, where it was asked for and has been evaluated."""
    if not curves.manifest.get("baseline") or not curves.live:
        return None
    base = curves_module.read(folder / BASELINE)
    return base if base.points and base.has_success == curves.has_success else None


def section(curves: Curves) -> str:
    found = measure(curves)
    if found is None:
        return ""
    points = lambda v: f"{100 * v:.0f} points" if curves.has_success else number(v)
    name = "success" if curves.has_success else "return"
    dip = f"−{points(found['dip'])}" if found["dip"] > 0 else "none"
    at = f"{found['dip_at']:,} steps after the switch" if found["dip"] > 0 else "never below the level at the switch"
    back = {None: "not yet", 0: "at once"}.get(found["recovered"], f"{found['recovered'] or 0:,} steps")
    tiles = [
        ("Deepest dip", dip, at),
        ("Recovered after", back, "first evaluation back at the level of the switch"),
        (f"Mean {name} while live", writer(curves)(found["area"]), "area under the curve after the switch ÷ its steps"),
    ]
    if found["regret"] is not None:
        tiles.append(("Regret", number(found["regret"]), "1 − mean success of the episodes played to learn"))
    if found["q_before"] is not None and found["q_after"] is not None:
        scale = f"{number(found['q_before'])} → {number(found['q_after'])}"
        about = f"critic's mean value, end of offline and first live evaluation; {number(found['q_final'])} at the end"
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


def beside(curves: Curves, base: Curves | None) -> str:
    """The run and its baseline, number by number."""
    if base is None:
        return ""
    show, rows = writer(curves), ""
    for name, one in (("this run", curves), (f"{algorithm_of(base.manifest)} from scratch", base)):
        found, last = measure(one) or {}, one.last
        online = next((p for p in one.manifest.get("phases") or () if p.get("name") == "online"), {})
        settings = one.manifest.get("settings") or {}
        cells = (
            name, show(float(last.values.mean())), interval_text(one, last).removeprefix("95% interval "),
            show(found["area"]) if found else "", number(found["regret"]) if found.get("regret") is not None else "",
            f"{one.env_steps:,}", value_text(online.get("utd")), value_text(settings.get("critic.ensemble")),
        )  # fmt: skip
        rows += "<tr>" + "".join(f"<td>{escape(c)}</td>" for c in cells) + "</tr>"
    names = ("", "last", "95% interval", "mean live", "regret", "live steps", "updates per step", "critics")
    state = "" if base.finished else " It is unfinished: go on with this run's resume."
    return (f'<section><h2>Beside the baseline</h2><div class="block">{grid(names, rows)}</div><p class="small">'
            f"The baseline learns from the same data without pretraining, half of each batch from them.{state}</p>"
            f"</section>")  # fmt: skip


def _scale(found: dict) -> str:
    """The critic's values before and after the switch, as far as they were recorded."""
    return " → ".join(number(found[k]) for k in ("q_before", "q_after", "q_final") if found[k] is not None)


def _by_seed(curves: Curves, found: dict) -> str:
    """The same numbers of each seed, a line each."""
    if len(curves.seeds) < 2:
        return ""
    show, rows = writer(curves), ""
    for seed, one in list(zip(curves.seeds, found["by_seed"]))[:MOST_SEEDS]:
        back = {None: "not yet", 0: "at once"}.get(one["recovered"], f"{one['recovered'] or 0:,} steps")
        regret = "" if one["regret"] is None else number(one["regret"])
        cells = (seed, show(one["offline"]), show(one["dip"]), back, show(one["area"]), regret, show(one["final"]))
        rows += "<tr>" + "".join(f"<td>{escape(c)}</td>" for c in (*cells, _scale(one))) + "</tr>"
    names = ("seed", "at the switch", "deepest dip", "recovered after", "mean live", "regret", "end of live", "Q scale")
    return f'<div class="block">{grid(names, rows)}</div>'

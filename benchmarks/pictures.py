"""Draw the live curves that are kept: python benchmarks/pictures.py writes results/any-policy.svg and results/door.svg.

A panel a method: success against live steps, a thin line a seed, a thick one their mean, dashed the level before the
first live step.
"""

from __future__ import annotations

from collections.abc import Iterable

import any_policy as classes
from keep import HERE, curve, rows_of

from understudy.evaluate.plot import dot, drawing, escape, round_numbers, segment, tick_label

WIDTH, HEIGHT, ACROSS = 250, 170, 4  # of a panel; panels in a row
LEFT, RIGHT, TOP, BOTTOM = 34, 30, 34, 26
STYLE = """<style>
svg{--ink:#161b22;--muted:#5a6473;--grid:#e4e7ec;--line:#0b67c2;background:#fff;font-family:system-ui,sans-serif}
@media (prefers-color-scheme:dark){svg{--ink:#e7ebf1;--muted:#9da8b7;--grid:#2d3641;--line:#62a9ff;background:#0f1319}}
text{fill:var(--muted);font-size:11px}.name{fill:var(--ink);font-size:13px;font-weight:600}
.value{fill:var(--ink);font-size:12px;font-weight:600}.end{text-anchor:end}.mid{text-anchor:middle}
.grid{stroke:var(--grid)}.level{stroke:var(--muted);stroke-dasharray:4 3}polyline{fill:none;stroke:var(--line)}
.thin{stroke-width:1;opacity:.45}.mean{stroke-width:2.4}.mark{fill:var(--line)}
</style>"""


def panel(name: str, rows: list[dict], left: float, top: float) -> Iterable[str]:
    mean = curve(rows)
    most = mean[-1][0]
    x = lambda steps: left + LEFT + (WIDTH - LEFT - RIGHT) * steps / most
    y = lambda success: top + TOP + (HEIGHT - TOP - BOTTOM) * (1 - success)
    yield f'<text x="{left + LEFT}" y="{top + 18}" class="name">{escape(name)}</text>'
    for success in (0, 0.5, 1):
        yield segment(x(0), y(success), x(most), y(success), "grid")
        yield f'<text x="{left + LEFT - 6}" y="{y(success) + 4:.1f}" class="end">{100 * success:g}</text>'
    for steps in round_numbers(0, most, 4):
        yield f'<text x="{x(steps):.1f}" y="{y(0) + 15:.1f}" class="mid">{tick_label(steps)}</text>'
    if mean[0][0] == 0:
        yield segment(x(0), y(mean[0][1]), x(most), y(mean[0][1]), "level")
    line = lambda points, style: (
        f'<polyline points="{" ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in points)}" class="{style}"/>'
    )
    for seed in sorted({row["seed"] for row in rows}):
        yield line(curve(rows, seed), "thin")
    yield line(mean, "mean")
    for steps, success in mean:
        yield dot(x(steps), y(success), 2.6, "mark", f"{100 * success:.0f}% after {steps:,} live steps")
    yield f'<text x="{x(most) + 5:.1f}" y="{y(mean[-1][1]) + 4:.1f}" class="value">{100 * mean[-1][1]:.0f}</text>'


def picture(panels: dict[str, list[dict]], label: str) -> str:
    place = lambda i: (i % ACROSS * WIDTH, i // ACROSS * HEIGHT)
    items = [piece for i, (name, rows) in enumerate(panels.items()) for piece in panel(name, rows, *place(i))]
    return drawing(ACROSS * WIDTH, -(-len(panels) // ACROSS) * HEIGHT, [STYLE, *items], label) + "\n"


def any_policy() -> str:
    """Every policy class from its clone; a residual also with the critic of ResFiT."""
    panels = classes.results() | {"residual, ResFiT's critic": rows_of("any-residual-td")}
    return picture(panels, "Success in percent against live steps, for every policy class, from its clone")


def door() -> str:
    """Methods from 25 human demonstrations."""
    panels = {p.name.removesuffix("-door"): rows_of(p.name) for p in sorted(HERE.glob("*-door"))}
    return picture(panels, "Success in percent against live steps on Adroit's door, for every method")


def main() -> None:
    for name, draw in {"any-policy": any_policy, "door": door}.items():
        (HERE / f"{name}.svg").write_text(draw())


if __name__ == "__main__":
    main()

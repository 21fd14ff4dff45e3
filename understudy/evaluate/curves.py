"""A run's logs as arrays per seed and evaluation point; what they say in numbers is in `summary` and `switch`.

`read` tolerates what a killed run leaves behind: absent files, a last line cut short, an evaluation half written. What
was missing or left out is in `Curves.notes`.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import pathlib
from collections.abc import Iterable

import numpy as np

from understudy.evaluate.statistics import successes_of

ACTING = ("warmup", "online")  # phases measured in environment steps, where no manifest says so


@dataclasses.dataclass(frozen=True)
class Part:
    """A stretch of the run's axis in one unit: consecutive phases without an environment, or consecutive ones with.

    Attributes:
      unit: "updates", or "env_steps" (of each seed).
      phases: names of its phases, in order.
      bounds: where each of them ends, in `unit` from the start of the part.
      start: the run's counter of `unit` where the part begins.
    """

    unit: str
    phases: tuple[str, ...]
    bounds: tuple[int, ...]
    start: int

    @property
    def length(self) -> int:
        return self.bounds[-1]


@dataclasses.dataclass(frozen=True)
class Point:
    """One evaluation: M episodes of each of K seeds.

    Attributes:
      phase, updates, env_steps: when it was made; phase "start" is before any update.
      part, x: the same as a place on the axis: index of a `Part`, distance from its start.
      success [K, M], returns [K, M], score [K, M]: None where the task defines none.
    """

    phase: str
    updates: int
    env_steps: int
    part: int
    x: int
    returns: np.ndarray
    success: np.ndarray | None = None
    score: np.ndarray | None = None

    @property
    def values(self) -> np.ndarray:
        """What the run is judged by, [K, M]: success, or the return where the task defines no success."""
        return self.returns if self.success is None else self.success


@dataclasses.dataclass(frozen=True)
class Metrics:
    """metrics.jsonl: T lines, K seeds.

    Attributes:
      phases: T names; updates, env_steps [T] int; seconds [T]: counters at the end of each line's stretch.
      values: {name: [T, K]}, NaN where a line does not have it.
      episodes: {"return" or "success": [T]}, means over the training episodes that ended in a line, NaN for none.
      played: the same episodes one by one: {"phase", "seed" (-1: not known), "success" (NaN: not defined): [N]}.
    """

    phases: tuple[str, ...]
    updates: np.ndarray
    env_steps: np.ndarray
    seconds: np.ndarray
    values: dict[str, np.ndarray]
    episodes: dict[str, np.ndarray]
    played: dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Curves:
    """Everything `read` found.

    Attributes:
      manifest: {} where there is none that can be read.
      seeds: training seeds, K.
      parts: the axis.
      points: complete evaluations in the order they were made.
      metrics: see `Metrics`.
      notes: sentences on what is missing, damaged or left out.
    """

    manifest: dict
    seeds: tuple[int, ...]
    parts: tuple[Part, ...]
    points: tuple[Point, ...]
    metrics: Metrics
    notes: tuple[str, ...]

    @property
    def has_success(self) -> bool:
        return bool(self.points) and all(p.success is not None for p in self.points)

    @property
    def last(self) -> Point | None:
        """The newest evaluation."""
        return self.points[-1] if self.points else None

    @property
    def best(self) -> Point | None:
        """The evaluation with the highest mean, the earlier of equals. Chosen with hindsight: it flatters."""
        return max((p for p in self.points if p.phase != "start"), key=lambda p: p.values.mean(), default=None)

    @property
    def switch(self) -> Point | None:
        """The evaluation at the switch to live learning: the last one of phase "offline"; without such, "start"."""
        for phase in ("offline", "start"):
            found = [p for p in self.points if p.phase == phase]
            if found:
                return found[-1]
        return None

    @property
    def live(self) -> tuple[Point, ...]:
        """Evaluations in phases that act in the environment."""
        return tuple(p for p in self.points if p.phase != "start" and self.parts[p.part].unit == "env_steps")

    @property
    def updates(self) -> int:
        return max([int(x) for x in self.metrics.updates[-1:]] + [p.updates for p in self.points], default=0)

    @property
    def env_steps(self) -> int:
        return max([int(x) for x in self.metrics.env_steps[-1:]] + [p.env_steps for p in self.points], default=0)

    @property
    def seconds(self) -> float:
        return float(self.metrics.seconds[-1]) if len(self.metrics.seconds) else 0.0

    @property
    def finished(self) -> bool:
        """Whether the logs reach the end of the last planned phase."""
        if not self.manifest.get("phases"):
            return False
        final = self.parts[-1]
        reached = self.updates if final.unit == "updates" else self.env_steps
        return reached >= final.start + final.length

    def locate(self, phase: str, updates: int, env_steps: int) -> tuple[int, int]:
        """The place on the axis of a line of a log: (index of the part, distance from its start)."""
        counter = {"updates": updates, "env_steps": env_steps}
        place = (0, 0)
        for i, part in enumerate(self.parts):
            if phase in part.phases and (counter[part.unit] > part.start or place == (0, 0)):
                place = (i, max(counter[part.unit] - part.start, 0))
        return place


def read(run_folder) -> Curves:
    """Read manifest.json, episodes.jsonl and metrics.jsonl of a run folder, whatever of them is there."""
    folder = pathlib.Path(run_folder)
    notes: list[str] = []
    manifest = _manifest(folder, notes)
    episode_rows = _lines(folder / "episodes.jsonl", ("phase", "updates", "env_steps", "seed", "episode"), notes)
    metric_rows = _lines(folder / "metrics.jsonl", ("phase", "updates", "env_steps"), notes)
    seeds = tuple(manifest.get("seeds") or sorted({r["seed"] for r in episode_rows}))
    phases = manifest.get("phases") or _phases(sorted(metric_rows + episode_rows, key=_when))
    curves = Curves(
        manifest=manifest,
        seeds=seeds,
        parts=_parts(phases, metric_rows + episode_rows),
        points=(),
        metrics=_metrics(metric_rows),
        notes=(),
    )
    points = _points(curves, episode_rows, notes)
    return dataclasses.replace(curves, points=points, notes=tuple(notes))


# --- files ----------------------------------------------------------------------------------------------------------


def _manifest(folder: pathlib.Path, notes: list[str]) -> dict:
    try:
        manifest = json.loads((folder / "manifest.json").read_text())
        if isinstance(manifest, dict):
            return manifest
    except FileNotFoundError:
        notes.append("manifest.json is missing: settings, data and versions are unknown.")
        return {}
    except (OSError, ValueError):
        pass
    notes.append("manifest.json could not be read: settings, data and versions are unknown.")
    return {}


def _lines(path: pathlib.Path, needed: tuple[str, ...], notes: list[str]) -> list[dict]:
    """Rows of a .jsonl file. A last line cut short is normal for a killed run; any bad line is left out and noted."""
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError:
        notes.append(f"{path.name} is missing.")
        return []
    rows, bad = [], 0
    for i, line in enumerate(lines):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            if not isinstance(row, dict) or not all(isinstance(row.get(k), int | str) for k in needed):
                raise ValueError
            row["updates"], row["env_steps"] = int(row["updates"]), int(row["env_steps"])
            rows.append(row)
        except ValueError:
            if i == len(lines) - 1:
                notes.append(f"The last line of {path.name} is cut short (the run was killed) and left out.")
            else:
                bad += 1
    if bad:
        notes.append(f"{bad} damaged line{'s' * (bad > 1)} of {path.name} left out.")
    return rows


def _when(row: dict) -> tuple[int, int]:
    return row["updates"], row["env_steps"]


# --- the axis -------------------------------------------------------------------------------------------------------


def _phases(rows: list[dict]) -> list[dict]:
    """Phases as the logs show them, for a folder without a manifest."""
    phases: list[dict] = []
    updates = env_steps = 0
    for row in rows:
        if row["phase"] == "start":
            continue
        if not phases or phases[-1]["name"] != row["phase"]:
            phases.append(
                {"name": row["phase"], "updates": 0, "env_steps": 0, "utd": 0.0, "from": (updates, env_steps)}
            )
        phase = phases[-1]
        updates, env_steps = row["updates"], row["env_steps"]
        made, stepped = updates - phase["from"][0], env_steps - phase["from"][1]
        if stepped > 0 or phase["name"] in ACTING:
            phase.update(updates=0, env_steps=stepped, utd=made / max(stepped, 1))
        else:
            phase.update(updates=made, env_steps=0)
    return phases


def _parts(phases: list[dict], rows: list[dict]) -> tuple[Part, ...]:
    """Group phases by unit. The last part reaches as far as the logs do, should they go beyond the plan."""
    parts: list[Part] = []
    updates = env_steps = 0
    made_by = {r["phase"]: r["updates"] for r in rows}  # in the end; rows come in their order
    for number, phase in enumerate(phases):
        steps, made = int(phase.get("env_steps") or 0), int(phase.get("updates") or 0)
        unit = "env_steps" if steps or (not made and phase["name"] in ACTING) else "updates"
        length = steps if unit == "env_steps" else made
        if parts and parts[-1].unit == unit and not phase.get("restart"):
            before = parts[-1]
            parts[-1] = dataclasses.replace(
                before, phases=(*before.phases, phase["name"]), bounds=(*before.bounds, before.length + length)
            )
        else:
            start = env_steps if unit == "env_steps" else updates
            parts.append(Part(unit=unit, phases=(phase["name"],), bounds=(length,), start=start))
        if unit == "env_steps" and phase["name"] in made_by and any(p["name"] in made_by for p in phases[number + 1 :]):
            updates = made_by[phase["name"]]  # an algorithm that learns in bursts has a number of its own
        else:
            updates += made if unit == "updates" else int(steps * float(phase.get("utd") or 0.0) + 1e-9)
        env_steps += steps
    if not parts:
        return ()
    final = parts[-1]
    reached = max((r[final.unit] for r in rows if r["phase"] in final.phases), default=0) - final.start
    if reached > final.length:
        parts[-1] = dataclasses.replace(final, bounds=(*final.bounds[:-1], reached))
    return tuple(parts)


# --- rows to arrays -------------------------------------------------------------------------------------------------


def _points(curves: Curves, rows: list[dict], notes: list[str]) -> tuple[Point, ...]:
    """Group episodes by evaluation. One without all episodes of all seeds was cut off, and is left out."""
    groups: dict[tuple, dict[int, dict[int, dict]]] = {}
    for row in _told(rows):
        by_seed = groups.setdefault((row["phase"], row["updates"], row["env_steps"]), {})
        by_seed.setdefault(row["seed"], {})[row["episode"]] = row
    protocol = curves.manifest.get("protocol") or {}
    planned = protocol.get("least", protocol.get("episodes"))
    points = []
    for number, ((phase, updates, env_steps), by_seed) in enumerate(groups.items(), 1):
        counts = {frozenset(by_seed.get(seed, {})) for seed in curves.seeds}
        short = number == len(groups) and planned is not None and any(len(c) < planned for c in counts)
        if len(counts) != 1 or not next(iter(counts)) or short:
            notes.append(f"The evaluation of phase {phase} at {updates:,} updates, {env_steps:,} steps is incomplete "
                         f"and left out.")  # fmt: skip
            continue
        table = [[by_seed[s][j] for j in sorted(by_seed[s])] for s in curves.seeds]
        part, x = curves.locate(phase, updates, env_steps) if phase != "start" else (0, 0)
        points.append(
            Point(
                phase=phase, updates=updates, env_steps=env_steps, part=part, x=x,
                returns=_array(table, "return"), success=_optional(table, "success"), score=_optional(table, "score"),
            )
        )  # fmt: skip
    return tuple(points)


def _told(rows: list[dict]) -> list[dict]:
    """With a failure where an environment that reports success at all has reported none."""
    success = successes_of(r.get("success") for r in rows)
    return rows if success is None else [r | {"success": s} for r, s in zip(rows, success)]


def _array(table: list[list[dict]], key: str) -> np.ndarray:
    return np.array([[float("nan") if r.get(key) is None else float(r[key]) for r in row] for row in table])


def _optional(table: list[list[dict]], key: str) -> np.ndarray | None:
    values = _array(table, key)
    return None if np.isnan(values).any() else values


def _metrics(rows: list[dict]) -> Metrics:
    names = dict.fromkeys(n for r in rows for n in r.get("metrics") or {})
    width = max((len(v) for r in rows for v in (r.get("metrics") or {}).values()), default=1)
    values = {n: np.full((len(rows), width), np.nan) for n in names}
    episodes = {n: np.full(len(rows), np.nan) for n in ("return", "success")}
    told = any(v is not None for row in rows for v in (row.get("episodes") or {}).get("success") or [])
    missing, played = {"return": np.nan, "success": 0.0 if told else np.nan}, []
    for t, row in enumerate(rows):
        for name, per_seed in (row.get("metrics") or {}).items():
            values[name][t, : len(per_seed)] = [np.nan if v is None else v for v in per_seed]
        ended = row.get("episodes") or {}
        for name in episodes:
            each = np.array([missing[name] if v is None else v for v in ended.get(name) or []])
            if not np.isnan(each).all():
                episodes[name][t] = np.nanmean(each)
            if name == "success":
                seeds = ended.get("seed") or [-1] * len(each)
                played += [(row["phase"], seed, value) for seed, value in zip(seeds, each)]
    return Metrics(
        phases=tuple(r["phase"] for r in rows),
        updates=np.array([r["updates"] for r in rows], int),
        env_steps=np.array([r["env_steps"] for r in rows], int),
        seconds=np.array([r.get("seconds") or 0.0 for r in rows], float),
        values=values,
        episodes={n: v for n, v in episodes.items() if not np.isnan(v).all()},
        played={
            "phase": np.array([p for p, _, _ in played], str),
            "seed": np.array([s for _, s, _ in played], int),
            "success": np.array([x for _, _, x in played], float),
        },
    )


# --- numbers --------------------------------------------------------------------------------------------------------


def interval(values: np.ndarray) -> tuple[float, float, float]:
    """Mean and 95% interval (mean, low, high) of values [K seeds, M episodes]; NaN where a value is not finite."""
    if not np.isfinite(values).all():
        return (float("nan"),) * 3
    return _interval(np.ascontiguousarray(values, np.float64).tobytes(), values.shape)


@functools.lru_cache(maxsize=4096)  # the result and the report ask for the same ones, and a bootstrap is not free
def _interval(data: bytes, shape: tuple[int, int]) -> tuple[float, float, float]:
    from understudy.evaluate import statistics

    mean, low, high = statistics.summary(np.frombuffer(data).reshape(shape))
    return float(mean), float(low), float(high)


def rates(metrics: Metrics) -> np.ndarray:
    """Updates per second over each line's stretch, [T]; NaN for the first line and where the clock stood still."""
    rate = np.full(len(metrics.seconds), np.nan)
    elapsed, made = np.diff(metrics.seconds), np.diff(metrics.updates)
    moved = (elapsed > 0) & (made >= 0)
    rate[1:][moved] = made[moved] / elapsed[moved]
    return rate


def q_name(metrics: Metrics) -> str | None:
    """The metric that holds the critic's value of the data: "critic/q", or one that ends so; else "critic/v", of the
    states, where no Q is learned."""
    names = ("critic/q", *(n for n in sorted(metrics.values) if n.endswith("/q")), "critic/v")
    return next((n for n in names if n in metrics.values), None)


def thin(items: Iterable, most: int) -> list:
    """At most `most` of the items, evenly spread, the first and the last among them."""
    items = list(items)
    if len(items) <= most:
        return items
    return [items[i] for i in np.linspace(0, len(items) - 1, most).round().astype(int)]

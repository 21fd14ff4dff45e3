"""Named settings per published table, every number with its source. No heavy imports: presets are data.

A preset may rest on another (`base`). Its fields are applied in this order: the base's "*" group, the base's group of
the algorithm, then its own two. A field of a "*" group is skipped by an algorithm that lacks it, a number of the run by
one whose recipe has its own; in an algorithm's own group an unknown field is an error.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from understudy.errors import SettingsError

if TYPE_CHECKING:
    from understudy.algorithm import Algorithm

# What belongs to a run rather than to an algorithm: `train` takes it where its argument is None; reset, what starts
# afresh at the switch whatever that says, has no argument.
RUN_KEYS = ("offline", "batch_size", "utd", "switch", "offline_share", "warmup", "reset", "offline_settings",
            "online_settings", "n_step", "reward_scale", "reward_bias")  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Preset:
    """Settings under one name.

    Attributes:
      name: what --preset takes.
      summary: one line.
      source: where the numbers are from.
      settings: {algorithm or "*": {dotted name: value}}.
      run: {algorithm or "*": {run key: value}}, see RUN_KEYS; rewards become reward_scale * r + reward_bias.
      base: name of the preset that this one rests on, or "".
    """

    name: str
    summary: str
    source: str
    settings: Mapping[str, Mapping[str, Any]]
    run: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    base: str = ""

    def _chain(self) -> list[Preset]:
        return [*(get(self.base)._chain() if self.base else ()), self]

    def apply(self, name: str, algorithm: Algorithm) -> Algorithm:
        """The algorithm registered as `name`, with this preset's fields. Raises SettingsError."""
        from understudy import settings

        for preset in self._chain():
            shared = preset.settings.get("*", {})
            known = {s.name for s in settings.fields(algorithm)}
            algorithm = settings.apply(algorithm, {k: v for k, v in shared.items() if k in known})
            try:
                algorithm = settings.apply(algorithm, preset.settings.get(name, {}))
            except SettingsError as error:
                raise SettingsError(f"Preset '{preset.name}' does not fit {name}: {error}") from None
        return algorithm

    def run_for(self, name: str) -> dict[str, Any]:
        """What the run takes for the algorithm registered as `name`, e.g. {"batch_size": 256, "switch": "mix:0.5"}."""
        from understudy.registry import run_of

        out, recipe = {}, run_of(name)
        for preset in self._chain():
            shared = {k: v for k, v in preset.run.get("*", {}).items() if k not in recipe}
            out |= shared | dict(preset.run.get(name, {}))
        return out

    @property
    def algorithms(self) -> list[str]:
        """The algorithms that it has numbers of their own for, its base aside."""
        return sorted((set(self.settings) | set(self.run)) - {"*"})


def published(algorithm: str, env: str) -> str | None:
    """The preset with numbers of its own for this algorithm in this environment, by the environment's name."""
    for name, preset in presets().items():
        benchmark, _, domain = name.partition("-")
        here = env.startswith(f"{domain}-") if benchmark == "ogbench" else (
            name == "adroit-sparse" and env.startswith("AdroitHand") and "Sparse" in env)  # fmt: skip
        if here and algorithm in {a for p in preset._chain() for a in p.algorithms}:
            return name
    return None


@functools.cache
def presets() -> dict[str, Preset]:
    """Every preset by name, general ones first."""
    from understudy.presets import d4rl, ogbench

    return {p.name: p for p in (*d4rl.PRESETS, *ogbench.PRESETS)}


def get(name: str) -> Preset:
    """The preset of that name; case, hyphens and underscores do not matter. Raises SettingsError."""
    from understudy.registry import match

    return presets()[match("preset", name, presets())]

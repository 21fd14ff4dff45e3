"""Names -> recipes, policies, data sets. Nothing heavy is imported before a name is asked for.

Packages outside add their own through the entry-point groups `understudy.algorithms` (a function action_size ->
Algorithm) and `understudy.policies` (a Policy class); theirs too are imported only when asked for by name.
"""

from __future__ import annotations

import dataclasses
import importlib
import re
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from understudy.errors import SettingsError, UserError, did_you_mean

if TYPE_CHECKING:
    from understudy.algorithm import Algorithm
    from understudy.presets import Preset


@dataclasses.dataclass(frozen=True)
class Entry:
    """Something that can be named.

    Attributes:
      target: where it is, "module:attribute".
      summary: one line.
      paper: arXiv number, or "".
      package: the outside package that brings it, "" for understudy's own.
      run: a run's own defaults (presets.RUN_KEYS): {"offline": 0} for one that learns live
        only. A preset's numbers win over them, and what the user gives over both.
    """

    target: str
    summary: str
    paper: str = ""
    package: str = ""
    run: Mapping[str, Any] = dataclasses.field(default_factory=dict)


ALGORITHMS = {
    "bc": Entry("understudy.algorithms.bc:bc", "behaviour cloning: imitate the data, whatever they are worth"),
    "sac": Entry("understudy.algorithms.sac:sac", "soft actor-critic: online, entropy-regularised", "1812.05905",
                 run={"offline": 0}),
    "td3_bc": Entry("understudy.algorithms.td3_bc:td3_bc", "TD3 with behaviour cloning", "2106.06860"),
    "rebrac": Entry("understudy.algorithms.rebrac:rebrac", "TD3+BC with penalties on actor and critic", "2305.09836"),
    "iql": Entry("understudy.algorithms.iql:iql", "in-sample values, advantage-weighted imitation", "2110.06169"),
    "cql": Entry("understudy.algorithms.cql:cql", "values pushed down outside the data", "2006.04779"),
    "cal_ql": Entry("understudy.algorithms.cal_ql:cal_ql", "CQL calibrated for fine-tuning", "2303.05479"),
    "rlpd": Entry("understudy.algorithms.rlpd:rlpd", "SAC online, half of each batch from the data", "2302.02948",
                  run={"offline": 0}),
    "wsrl": Entry("understudy.algorithms.wsrl:wsrl", "Cal-QL, then SAC without the offline data", "2412.07762",
                  run={"switch": "warmup:5000+drop", "utd": 4, "batch_size": 256,
                       "online_settings": {"critic.weight": 0.0}}),
    "ppo": Entry("understudy.algorithms.ppo:ppo", "clipped policy gradient on what was just played", "1707.06347",
                 run={"reset": ("optimizer",)}),
    "dppo": Entry("understudy.algorithms.dppo:dppo", "PPO through a diffusion policy's denoising steps", "2409.00588",
                  run={"reset": ("optimizer",)}),
    "uni_o4": Entry("understudy.algorithms.uni_o4:uni_o4", "PPO off line on learned values, then on line", "2311.03351",
                    run={"online_settings": {"learning_rate": 2e-5, "value_learning_rate": 2e-4, "clip": 0.05,
                                             "entropy": 0.01}}),
    "ooo": Entry("understudy.algorithms.ooo:ooo", "explore with a bonus, then retrain offline", "2310.08558",
                 run={"switch": "retrain+successes:0.03125",  # 8 of 256 transitions
                      "online_settings": {"bonus": 10.0}}),  # both: the authors' AntMaze, Kitchen
    "jsrl": Entry("understudy.algorithms.jsrl:jsrl", "the offline policy plays the start of episodes", "2204.02372",
                  run={"online_settings": {"follow": 0.0}}),
    "arsq": Entry("understudy.algorithms.arsq:arsq", "soft Q-learning over tokens of the action", "2502.00288",
                  run={"offline": 0, "batch_size": 512}),
    "h2o": Entry("understudy.algorithms.h2o:h2o", "SAC on real data and a simulator with other dynamics", "2206.13464",
                 run={"offline": 0, "offline_share": 0.5}),
    "hnpg": Entry("understudy.algorithms.hnpg:hnpg", "natural policy gradient, its critic also on data", "2311.08384",
                  run={"offline": 0, "offline_share": 1.0, "batch_size": 1000}),
    "moorl": Entry("understudy.algorithms.moorl:moorl", "SAC that adapts to the data and to live steps by turns",
                   "2506.09574", run={"offline": 0, "offline_share": 0.5, "batch_size": 512}),
    "fql": Entry("understudy.algorithms.fql:fql", "one-step policy distilled from a flow, climbing Q", "2502.02538"),
    "idql": Entry("understudy.algorithms.idql:idql", "IQL's values, best of N samples of a diffusion", "2304.10573"),
    "diffusion_ql": Entry("understudy.algorithms.diffusion_ql:diffusion_ql", "a diffusion policy that climbs Q",
                          "2208.06193"),
    "ifql": Entry("understudy.algorithms.ifql:ifql", "IQL's values, best of N samples of a flow", "2304.10573"),
    "qc": Entry("understudy.algorithms.qc:qc", "values of action chunks, best of N chunks of a flow", "2507.07969"),
    "qc_fql": Entry("understudy.algorithms.qc:qc_fql", "FQL over chunks of actions", "2507.07969"),
    "resfit": Entry("understudy.algorithms.resfit:resfit", "small live corrections of a frozen imitator", "2509.19301",
                     run={"utd": 4, "offline_share": 0.5, "warmup": 10_000, "n_step": 3, "reset": ("optimizer",),
                         "offline_settings": {"policy.scale": 0.0},
                         "online_settings": {"extraction.alpha": 0.0, "learning_rate": 1e-5}}),
    "dsrl": Entry("understudy.algorithms.dsrl:dsrl", "chooses the noise of a frozen flow or diffusion", "2506.15799",
                   run={"utd": 20, "reset": ("optimizer",),
                       "offline_settings": {"extraction.improvement": 0.0, "extraction.learning_rate": 0.0,
                                            "critic.learning_rate": 0.0},
                       "online_settings": {"extraction.imitation": 0.0}}),
    "parrot": Entry("understudy.algorithms.parrot:parrot", "SAC in the latent space of a frozen prior", "2011.10024",
                     run={"switch": "drop", "reset": ("optimizer",),
                         "offline_settings": {"extraction.improvement": 0.0, "extraction.learning_rate": 0.0,
                                              "critic.learning_rate": 0.0},
                         "online_settings": {"extraction.imitation": 0.0}}),
    "ro2o": Entry("understudy.algorithms.ro2o:ro2o", "SAC, smooth and pessimistic near the data", "2309.16973",
                   run={"switch": "warmup:2500+drop", "online_settings": {"critic.penalty": 0.1}}),
    "pa_rl": Entry("understudy.algorithms.pa_rl:pa_rl", "any policy imitates its best samples, which climb Q",
                   "2412.06685", run={"switch": "reset-optimizer"}),
}  # fmt: skip

POLICIES = {
    "gaussian": Entry("understudy.policies.gaussian:Gaussian", "deviation constant, learned or state-dependent"),
    "tanh_gaussian": Entry("understudy.policies.tanh_gaussian:TanhGaussian", "Gaussian squashed by tanh"),
    "deterministic": Entry("understudy.policies.deterministic:Deterministic", "a = tanh(f(s))"),
    "flow": Entry("understudy.policies.flow:Flow", "flow matching, integrated from noise in a few steps"),
    "one_step_flow": Entry("understudy.policies.one_step_flow:OneStepFlow", "flow with a one-step student"),
    "mixture": Entry("understudy.policies.mixture:Mixture", "mixture of Gaussians"),
    "diffusion": Entry("understudy.policies.diffusion:Diffusion", "denoising diffusion, ddpm or ddim, in a few steps"),
    "shortcut": Entry("understudy.policies.shortcut:Shortcut", "flow that jumps: one, two, four, ... steps"),
    "tokens": Entry("understudy.policies.tokens:Tokens", "a token of uniform bins for each dimension, autoregressive"),
    "coarse_to_fine": Entry("understudy.policies.tokens:CoarseToFine", "tokens of few bins, zooming in level by level"),
    "real_nvp": Entry("understudy.policies.real_nvp:RealNVP", "invertible flow, by maximum likelihood"),
    "residual": Entry("understudy.policies.residual:Residual", "bounded correction of a frozen base's actions"),
    "latent": Entry("understudy.policies.latent:Latent", "Gaussian over the noise of a frozen base"),
}

GROUPS = {"algorithm": "understudy.algorithms", "policy": "understudy.policies"}


def plain(name: str) -> str:
    """What is compared when names are matched: 'Cal-QL', 'cal_ql' and 'calql' are one name."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def match(kind: str, name: str, options: Iterable[str]) -> str:
    """The option that `name` means, whatever its case and hyphens. Raises SettingsError with a suggestion."""
    options = list(options)
    if name in options:
        return name
    for option in options:
        if plain(option) == plain(name):
            return option
    near = did_you_mean(name.lower().replace("-", "_"), options)
    plural = kind[:-1] + "ies" if kind.endswith("y") else kind + "s"
    raise SettingsError(f"There is no {kind} '{name}'.{near} See: understudy list {plural}")


def entries(kind: str) -> dict[str, Entry]:
    """Every algorithm or policy that can be named, understudy's own first; nothing of them is imported.

    Args:
      kind: "algorithm" or "policy".
    """
    own = ALGORITHMS if kind == "algorithm" else POLICIES
    outside = {}
    for point in _points(GROUPS[kind]):
        if point.name not in own:  # an outside package adds, it does not replace
            package = point.dist.name if point.dist is not None else "?"
            outside[point.name] = Entry(point.value, f"from the package {package}", package=package)
    return own | dict(sorted(outside.items()))


def _points(group: str):
    from importlib import metadata

    return metadata.entry_points(group=group)


def run_of(algorithm: Any) -> dict[str, Any]:
    """The run's defaults of an algorithm: its entry's where it has a name, an object's own `run` if it has one, which
    `make` gives it."""
    found = entries("algorithm").get(algorithm) if isinstance(algorithm, str) else algorithm
    return dict(getattr(found, "run", {}))


def preset_run_of(algorithm: Any, preset: str | None = None) -> dict[str, Any]:
    """What a preset says of the run: the named one of an algorithm by name, that of `make` of an object."""
    from understudy import presets

    if not isinstance(algorithm, str):
        return dict(getattr(algorithm, "preset_run", {}))
    return presets.get(preset).run_for(algorithm) if preset else {}


def load(kind: str, name: str) -> Callable[..., Any]:
    """The recipe or policy class of that name, imported now. Raises SettingsError where there is none."""
    found = entries(kind)
    name = match(kind, name, found)
    entry = found[name]
    module, _, attribute = entry.target.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except UserError:
        raise
    except Exception as error:
        if not entry.package:
            raise
        raise SettingsError(
            f"The {kind} '{name}' of the package {entry.package} could not be imported "
            f"({type(error).__name__}: {error}); mend or uninstall that package."
        ) from error


def capabilities(policy: type) -> list[str]:
    """What a policy class offers beyond `sample` and `loss`."""
    from understudy.core import CAPABILITIES

    return [name for name in CAPABILITIES if callable(getattr(policy, name, None))]  # a property depends on a base


def make(
    name: str, action_size: int, settings: Mapping[str, Any] | None = None, preset: str | Preset | None = None
) -> Algorithm:
    """Build an algorithm: its recipe, then the preset's fields, then other parts, then your settings.

    Args:
      name: a registered algorithm; case and hyphens do not matter ("Cal-QL").
      action_size: size A of the action vector, at least 1.
      settings: {dotted name: value}, values typed or as strings ("256 256"); the key "policy" names another policy
        class, "policy.base" another class of the base that it acts through, "critic" and "extraction" an algorithm
        whose part is taken; the new part keeps hidden, activation and layer_norm where it has those fields; "chunk"
        and "history" wrap any algorithm (`understudy.wrappers`).
      preset: a preset or its name.

    Returns:
      The algorithm. `understudy.settings.fields` lists its settings. `train` finds what recipe and preset say of the
      run in its attributes `run` and `preset_run`; a copy with other fields (`dataclasses.replace`) has neither.

    Raises:
      SettingsError: unknown algorithm, preset, policy or setting, or a value out of range.
    """
    from understudy import presets

    name = match("algorithm", name, entries("algorithm"))
    algorithm, brought = load("algorithm", name)(action_size), {"run": run_of(name)}
    if preset is not None:
        preset = presets.get(preset) if isinstance(preset, str) else preset
        algorithm, brought["preset_run"] = preset.apply(name, algorithm), preset.run_for(name)
    return adjust(_bringing(algorithm, brought), settings or {}, action_size)


def _bringing(algorithm: Algorithm, brought: Mapping[str, Any]) -> Algorithm:
    """The algorithm, with what its recipe and preset say of the run beside its fields."""
    for attribute, value in brought.items():
        object.__setattr__(algorithm, attribute, value)
    return algorithm


def adjust(algorithm: Algorithm, settings: Mapping[str, Any], action_size: int | None = None) -> Algorithm:
    """The algorithm with other settings, whole parts among them (`PARTS`).

    Args:
      algorithm: what `make` returned.
      settings: as for `make`.
      action_size: needed only where the algorithm's own policy does not say it.

    Raises:
      SettingsError: as `make`.
    """
    from understudy import settings as fields

    settings = dict(settings)
    brought = {k: vars(algorithm)[k] for k in ("run", "preset_run") if k in vars(algorithm)}
    for name in WRAPPED:
        if name in settings:
            from understudy.wrappers import wrapped

            algorithm = wrapped(algorithm, name)
    for part in PARTS:
        if part in settings:
            from understudy.exchange import EXCHANGES

            algorithm = EXCHANGES[part](algorithm, part, settings.pop(part), action_size)
    return _bringing(fields.apply(algorithm, settings), brought)


WRAPPED = ("chunk", "history")  # settings that put an algorithm into a wrapper, where it is in none
# Settings that name a whole part, and what they name: a policy class, or an algorithm whose part it is.
PARTS = {"critic": "algorithm", "extraction": "algorithm", "policy": "policy", "policy.base": "policy"}
CHOICES = (*PARTS, *WRAPPED)  # settings that decide which others there are
KEPT = ("hidden", "activation", "layer_norm")  # what another part keeps of the one before


def overrides(
    algorithm: Algorithm,
    settings: Mapping[str, Any],
    action_size: int | None = None,
    before: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Settings as a manifest records them: {full name: JSON value}, from which `adjust` makes the same algorithm again.

    Args:
      algorithm: without any settings. action_size: as for `adjust`.
      settings: as for `make`.
      before: overrides that these come on top of; another part drops those of the old one, sizes apart.

    Raises:
      SettingsError: as `make`.
    """
    from understudy import settings as fields

    settings, out = dict(settings), dict(before or {})
    chosen = {k: v for k, v in (out | settings).items() if k in WRAPPED}
    for part, kind in PARTS.items():
        if part in settings:
            adjust(algorithm, chosen | {part: settings[part]}, action_size)  # raises what is wrong with it
            name, inside = match(kind, settings.pop(part), entries(kind)), part + "."
            if name != out.get(part):
                out = {k: v for k, v in out.items() if not k.startswith(inside) or k.removeprefix(inside) in KEPT}
            out[part] = name
        chosen |= {part: out[part]} if part in out else {}
    target = adjust(algorithm, chosen, action_size)
    known = {s.name for s in fields.fields(target)} | set(PARTS)
    given = fields.resolve(target, settings)
    return {k: v for k, v in out.items() if k in known} | {k: fields.as_json(v) for k, v in given.items()}


FAMILIES = {
    "cube": "arm and cubes",
    "scene": "arm, drawer, window",
    "puzzle": "arm and buttons",
    "pointmaze": "point maze",
}
KINDS = {
    "play": "play",
    "noisy": "noisy play",
    "navigate": "goal after goal",
    "stitch": "short pieces",
}


def datasets(*, single: bool = True) -> dict[str, str]:
    """What `understudy data make` can generate: {name: what it is}.

    Args:
      single: the data sets of a single task, which have rewards; else those without a task.
    """
    from understudy.data import players  # imports numpy, and no simulator before it is used

    found = {}
    for name in players.names():
        task, kind, version = name.rsplit("-", 2)
        name = f"{task}-{kind}-singletask-{version}" if single else name
        found[f"ogbench/{name}"] = f"{FAMILIES[task.split('-')[0]]}, {KINDS[kind]}"
    return found


FORMATS = {
    "OGBench .npz": "a file: full and compact layouts, single-task rewards by relabelling",
    "D4RL .hdf5": "a file: flat observations, actions, rewards, terminals, timeouts",
    "arrays": "in Python: understudy.data.from_arrays",
}

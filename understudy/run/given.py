"""What `train` and `resume` are given, checked and brought into shape, before anything slow or lasting is done."""

from __future__ import annotations

import dataclasses
import datetime
import math
import pathlib
import platform
from collections.abc import Iterable, Mapping, Sequence

import jax
import numpy as np

from understudy.data.checks import not_vectors
from understudy.data.relabel import RULES
from understudy.data.replay import HostBuffer, example
from understudy.errors import DataError, EnvError, SettingsError
from understudy.progress import say
from understudy.run.plan import Plan
from understudy.settings import fields, numbers
from understudy.wrappers import core_of, discount_of

DEVICE_BYTES = 4 << 30  # a data set larger than this stays on the host
MOST_SEEDS = 10_000  # which train side by side in one program
FRACTIONS = ("utd", "offline_share", "reward_scale", "reward_bias", "checkpoint_every")


@dataclasses.dataclass(frozen=True)
class Shapes:
    """Sizes that the data and the environment agree on."""

    observation_shape: tuple[int, ...]
    action_size: int


def check_kinds(algorithm, dataset, *envs) -> None:
    """Refuse what is none of the things that `train` takes. Raises SettingsError."""
    from understudy.data import Dataset

    if isinstance(algorithm, type) or not (isinstance(algorithm, str) or hasattr(algorithm, "update")):
        name = algorithm.__name__ if isinstance(algorithm, type) else type(algorithm).__name__
        raise SettingsError(
            f"algorithm is {'the class ' if isinstance(algorithm, type) else ''}{name}; give a name "
            f"(understudy list algorithms) or an object, such as understudy.make('iql', action_size)."
        )
    if not (dataset is None or isinstance(dataset, str | pathlib.Path | Dataset)):
        raise SettingsError(
            f"dataset is {type(dataset).__name__}; give a name, a path, or understudy.data.from_arrays(observations, "
            f"actions, rewards, ...)."
        )
    if wrong := [env for env in envs if not (env is None or isinstance(env, str))]:
        raise SettingsError(
            f"env is {type(wrong[0]).__name__}; give the id that it is registered under, such as Pendulum-v1."
        )


def check_mappings(**given) -> None:
    """Refuse settings that are no {dotted name: value}. Raises SettingsError."""
    for name, value in given.items():
        if not (value is None or isinstance(value, Mapping)):
            raise SettingsError(f"{name} is {value!r}; give {{name: value}}, such as {{'critic.discount': 0.99}}.")


def spec_of(env: str | None, data) -> Shapes:
    """Sizes of observations and actions. Raises where the data do not fit the environment."""
    if env is None and data is None:
        raise SettingsError("Give a data set, an environment (--env ID), or both; got neither.")
    found = None
    if env is not None:
        from understudy.envs import describe

        about = describe(env)
        found = Shapes(tuple(about.observation_shape), about.action_size)
    if data is None:
        return found
    leaves = jax.tree.leaves(data.observations)
    if wrong := not_vectors(data.observations):
        raise DataError(f"{data.name}: {wrong}; flatten or encode them first.")
    mine = Shapes(tuple(leaves[0].shape[1:]) if len(leaves) == 1 else (), data.actions.shape[-1])
    if found is not None and isinstance(data.observations, dict):
        raise EnvError(
            f"{data.name} has dictionaries of observations and {env} gives arrays {found.observation_shape}; join them "
            f"into one array in the environment's order, or leave out --env."
        )
    if found is not None and mine != found:
        raise EnvError(
            f"{data.name} has observations {mine.observation_shape} and {mine.action_size} actions, {env} gives "
            f"observations {found.observation_shape} and takes {found.action_size}; name the environment that the data "
            f"were recorded in (--env ID)."
        )
    return mine


def columns_of(data, algo, the_plan: Plan, data_on: str):
    """The data set as the loop takes it: columns for the device, or a host source."""
    if data is None:
        return None
    if "rewards" in algo.requires and data.rewards is None:
        raise DataError(
            f"{data.name} has no rewards and the algorithm learns values; name an environment whose rewards can be "
            f"derived (--env ID; {RULES}), or imitate with bc."
        )
    if data_on not in ("auto", "device", "host"):
        raise SettingsError(f"data_on is {data_on!r}; give auto, device or host.")
    if data.rewards is not None and (the_plan.reward_scale, the_plan.reward_bias) != (1.0, 0.0):
        rewards = (the_plan.reward_scale * data.rewards + the_plan.reward_bias).astype(np.float32)
        data = dataclasses.replace(data, rewards=rewards)
    discount = discount_of(algo) if "mc_returns" in algo.requires else None
    size = 2 * sum(np.asarray(x).nbytes for x in jax.tree.leaves(data.observations))
    if data_on == "host" or (data_on == "auto" and size > DEVICE_BYTES):
        return HostBuffer(data, discount)
    return data.transitions(mc_discount=discount)


def example_of(columns, spec: Shapes, algo) -> dict:
    """A batch of one with the keys that data and replay share."""
    if columns is None:
        one = {"observations": np.zeros((1, *spec.observation_shape), np.float32),
               "actions": np.zeros((1, spec.action_size), np.float32), "rewards": np.zeros(1, np.float32),
               "masks": np.ones(1, np.float32), "ends": np.zeros(1, bool)}  # fmt: skip
        one["next_observations"] = one["observations"]
        if "mc_returns" in algo.requires:
            one["mc_returns"] = np.zeros(1, np.float32)
        return one
    if isinstance(columns, HostBuffer):
        one = {k: columns.take(k, np.arange(1)) for k in columns.data}
    else:
        one = example(columns)
    if "rewards" not in one:
        one["rewards"] = np.zeros(1, np.float32)
    return one


def number_of(name: str, given, default: float):
    """`given` as a Python number of the default's kind, the default where it is None. Raises SettingsError."""
    if given is None:
        return default
    kind = float if name in FRACTIONS else int
    try:
        number = float(given)
    except (TypeError, ValueError):
        number = math.nan
    if isinstance(given, str) or not math.isfinite(number) or kind(number) != number:
        raise SettingsError(f"{name} is {given!r}; give a {'number' if kind is float else 'whole number'}.")
    return kind(number)


def phase_settings(algo, bring, asked, which: str) -> dict[str, float]:
    """Settings that hold in one phase, by full name.

    Args:
      algo: the algorithm, with its parts as they were chosen.
      bring: what recipe and preset say of the run; settings of a part that was exchanged are left out, with a word.
      asked: what the user gave; nothing of it is left out.
      which: "offline_settings" or "online_settings".

    Raises:
      SettingsError: `asked` has a setting that is none of the algorithm's, or structure."""
    known, phase = {s.name for s in fields(algo)}, which.partition("_")[0]
    found: dict[str, float] = {}
    for own in (b.get(which) or {} for b in bring):
        if left := [f"{k} {v:g}" for k, v in own.items() if k not in known]:
            say(f"{' and '.join(left)}, which the recipe sets {phase}, has no place in the parts that were chosen.")
        found |= numbers(algo, {k: v for k, v in own.items() if k in known})
    return found | numbers(algo, asked or {})


def check_fit(algo, p: Plan, data, done: int = 0) -> None:
    """Refuse phases that the algorithm cannot learn in, and chunks that the sampler cannot make; `done`: phases that
    are over, with whatever algorithm. Raises SettingsError or DataError."""
    if hasattr(core_of(algo), "burst") and not hasattr(algo, "burst"):
        raise SettingsError(
            f"{type(core_of(algo)).__name__} learns from the steps that it has played, which {type(algo).__name__} "
            f"does not pass on; put that around another algorithm."
        )
    live_only = hasattr(algo, "burst") and not getattr(core_of(algo), "learns_offline", False)
    if live_only and (idle := [phase.name for phase in p.phases[done:] if not phase.acts]):
        way_out = "give --offline 0" if idle == ["offline"] else "leave retrain out"
        raise SettingsError(f"{type(core_of(algo)).__name__} learns only from what it plays; {way_out}.")
    if hasattr(algo, "burst") and any(phase.random_actions for phase in p.phases[done:]):
        raise SettingsError(
            f"{type(core_of(algo)).__name__} learns from what its policy has played, and a warm-up that nothing comes "
            f"before plays at random; give --warmup 0."
        )
    steps = algo.burst[0] * p.num_envs if hasattr(algo, "burst") else 0
    if short := [x for x in p.phases[done:] if x.acts and x.utd and x.env_steps < steps]:
        say(
            f"warning: {type(core_of(algo)).__name__} learns after every {steps:,} live steps, and the {short[0].name} "
            f"phase has {short[0].env_steps:,}: it learns nothing; give it more steps, or shorter rollouts."
        )
    outside = getattr(core_of(algo), "external", None)
    if outside is not None and (len(p.seeds) > 1 or core_of(algo) is not algo):
        raise SettingsError(
            f"{outside!r} is one policy outside the compiled code: give one seed, and no chunk or history around it."
        )
    if "candidates" in algo.requires and core_of(algo) is not algo:
        raise SettingsError(
            f"extraction.cached stores proposals of single actions at single observations, and there is a "
            f"{type(algo).__name__} around the algorithm; leave that out, or give --extraction.cached false."
        )
    parts = core_of(algo), getattr(core_of(algo), "critic", None)
    if any(hasattr(part, "demo_share") for part in (algo, *parts)) and any(
        phase.anneal or phase.as_one for phase in p.phases[done:]
    ):
        raise SettingsError(
            f"{type(algo).__name__} must know which rows of a batch are the data's, so their share cannot change from "
            f"batch to batch; give mix:S in the place of anneal or keep."
        )
    chunk = getattr(algo, "chunk", 0)
    if chunk and p.n_step > 1:
        raise SettingsError(
            f"n_step is {p.n_step} and chunk {chunk}; a chunk is its own n-step return: leave out n_step."
        )
    if p.n_step > 1 and any(hasattr(part, "single_steps") for part in parts):
        raise SettingsError(
            f"n_step is {p.n_step} and {type(core_of(algo)).__name__} learns where single steps lead; leave out n_step."
        )
    if chunk and data is not None and (longest := int(np.max(data.lengths))) < chunk:
        raise DataError(
            f"{data.name} has episodes of at most {longest} steps, chunks have {chunk} actions; give a smaller chunk."
        )


def check_plan(p: Plan) -> None:
    for name in ("batch_size", "n_step", "num_envs", "replay_capacity", "episodes"):
        if getattr(p, name) < 1:
            raise SettingsError(f"{name} is {getattr(p, name)}; give at least 1.")
    for name in ("eval_every", "checkpoint_every", "eval_seed"):
        if (getattr(p, name) or 0) < 0:
            raise SettingsError(f"{name} is {getattr(p, name)}; give at least 0.")
    if p.evaluate and p.env is not None:
        from understudy.envs import describe

        if describe(place := p.eval_env or p.env).max_episode_steps is None:
            raise EnvError(
                f"Environment '{place}' has no time limit, so that an evaluation may never end; register it with "
                f"max_episode_steps, evaluate in another (--eval-env ID), or train with --no-eval."
            )


def seeds_of(seeds: int | Sequence[int], first: int) -> tuple[int, ...]:
    whole = lambda x: isinstance(x, int | np.integer) and not isinstance(x, bool)
    if not whole(first):
        raise SettingsError(f"seed is {first!r}; give a whole number from 0 to 2**31 - 1.")
    if whole(seeds):
        if not 1 <= seeds <= MOST_SEEDS:
            bound = "at least 1" if seeds < 1 else f"at most {MOST_SEEDS:,}; one of your own choice is --seed"
            raise SettingsError(f"seeds is {seeds}; give {bound}.")
        seeds = range(first, first + int(seeds))
    if isinstance(seeds, str) or not isinstance(seeds, Iterable) or not all(map(whole, seeds := list(seeds))):
        raise SettingsError(f"seeds is {seeds!r}; give how many, or a list of different whole numbers.")
    seeds = tuple(int(s) for s in seeds)
    if not seeds or len(set(seeds)) != len(seeds) or min(seeds) < 0 or max(seeds) >= 2**31:
        raise SettingsError(f"seeds are {list(seeds)}; give different numbers from 0 to 2**31 - 1.")
    return seeds


def introduce(data) -> None:
    """Say what was loaded and what loading changed."""
    rewards = "without rewards" if data.rewards is None else "with rewards"
    say(f"{data.name}: {data.size:,} transitions in {data.episodes:,} episodes, {rewards}")
    for note in data.notes:
        say(note if note.startswith("warning") else f"  {note}")


def identity_of(data, given, action_range) -> dict | None:
    if data is None:
        return None
    return {"name": data.name, "source": data.source, "sha256": data.sha256, "transitions": int(data.size),
            "episodes": int(data.episodes), "notes": list(data.notes),
            "given": str(given) if isinstance(given, str | pathlib.Path) else None,
            "path": _place(given, data.source),  # from where a resume in another working directory finds it
            "action_range": action_range and [np.asarray(x).tolist() for x in action_range]}  # fmt: skip


def _place(given, source: str) -> str | None:
    """Where the file lies that a name or path meant, None for data in memory."""
    if not isinstance(given, str | pathlib.Path):
        return None
    place = pathlib.Path(source).resolve()
    return str(place) if place.exists() else None


def fresh_folder(algorithm: str, data, env) -> pathlib.Path:
    """A new folder under runs/."""
    about = (data.name if data is not None else env).rpartition("/")[2]
    stem = f"{algorithm}-{about}"
    number = 1
    while (path := pathlib.Path("runs") / f"{stem}-{number}").exists():
        number += 1
    return path


def versions() -> dict[str, str | None]:
    """Versions that decide what a run computes."""
    import importlib.metadata as metadata

    found: dict[str, str | None] = {"python": platform.python_version()}
    for name in ("understudy", "jax", "jaxlib", "flax", "optax", "numpy", "gymnasium", "mujoco", "ogbench"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found


def canonical(algorithm) -> str | None:
    """The registered name of an algorithm given by name, None for an object."""
    from understudy import registry

    if not isinstance(algorithm, str):
        return None
    return registry.match("algorithm", algorithm, registry.entries("algorithm"))


def now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")

"""Make and describe one environment by its id; the differences between benchmarks end here."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib
import importlib.metadata
import io
import time
import warnings

import gymnasium
import numpy as np

from understudy.envs import ogbench
from understudy.errors import DivergenceError, EnvError, did_you_mean

EXAMPLES = "cube-single-play-singletask-v0, AdroitHandDoorSparse-v1, HalfCheetah-v5"
INSTALL = "pip install 'understudy[envs]'"

# Returns of a random and of an expert policy, for 100 (return - random) / (expert - random), from D4RL's infos.py.
# Stated only where the reward and the horizon are still D4RL's. Not so: Adroit (gymnasium-robotics 1.4.2 adds the
# distance from hand to object to the dense reward where D4RL subtracts it; Pen has 200 steps, not 100; the sparse
# rewards are others), Hopper and Walker2d (v5 pays the healthy bonus otherwise), OGBench (success is the score).
SCORES = {"HalfCheetah-v4": (-280.178953, 12135.0), "HalfCheetah-v5": (-280.178953, 12135.0)}


@dataclasses.dataclass(frozen=True, eq=False)
class EnvSpec:
    """What a policy and a data set must fit.

    Attributes:
      id: as given to `make`.
      observation_shape: (O,) of the flat float32 observations.
      action_size: A.
      action_low, action_high: [A] the environment's own range, mapped affinely from [-1, 1].
      max_episode_steps: the time limit in steps, None if there is none.
      has_success: whether every step says if the task is solved.
      score: (random, expert) returns for the normalised score, None where none is defined for this reward.
      versions: package -> version that the physics depends on.
      note: one sentence on what the numbers mean, or "".
      step_seconds: how long a step took here, to choose the number of worker processes by.
    """

    id: str
    observation_shape: tuple[int, ...]
    action_size: int
    action_low: np.ndarray
    action_high: np.ndarray
    max_episode_steps: int | None
    has_success: bool
    score: tuple[float, float] | None
    versions: dict[str, str]
    note: str
    step_seconds: float

    def normalised(self, return_: float) -> float | None:
        """Return the benchmark's score of an episode return (0 random, 100 expert), or None."""
        return None if self.score is None else 100 * (return_ - self.score[0]) / (self.score[1] - self.score[0])


def make(env_id: str, *, render: bool | tuple[int, int] = False) -> gymnasium.Env:
    """Make one environment with flat float32 observations and float32 actions in [-1, 1].

    Actions are clipped to [-1, 1] and mapped affinely to the environment's own range. The `info` of a step holds
    "success" (0.0 or 1.0) where the task defines it, and nothing else. Wrap the result in `Episodes` for episodes that
    are the same for the same seed.

    Args:
      env_id: an OGBench single task as its data set is called (cube-single-play-singletask-v0,
        cube-single-play-singletask-task3-v0), a gymnasium-robotics id (AdroitHandDoorSparse-v1) or any registered
        Gymnasium id with one box of actions (HalfCheetah-v5, Pendulum-v1).
      render: make it ready for `render() -> [H, W, 3] uint8`; (width, height) sets the size where MuJoCo draws.

    Raises:
      EnvError: unknown id, package not installed, goal-conditioned OGBench id, images or discrete actions.
    """
    spec = _find(env_id)
    kwargs = {"render_mode": "rgb_array"} if render else {}
    if isinstance(render, tuple) and _draws_with_mujoco(spec):
        kwargs |= {"width": render[0], "height": render[1]}
    try:
        with _quiet():
            return Prepared(gymnasium.make(spec, disable_env_checker=True, **kwargs), env_id)
    except EnvError:
        raise
    except ImportError as error:
        raise EnvError(
            f"Environment '{env_id}' needs a package that does not import ({_line(error)}): {INSTALL}."
        ) from error
    except gymnasium.error.DependencyNotInstalled as error:
        what = str(error.args[0] if error.args else error).split(",")[0]
        raise EnvError(f"Environment '{env_id}' needs a package that is missing ({what}): {INSTALL}.") from error
    except Exception as error:  # whatever a third party's constructor raises is the user's choice of environment
        raise EnvError(f"Environment '{env_id}' could not be made ({type(error).__name__}: {_line(error)}).") from error


@functools.cache
def describe(env_id: str) -> EnvSpec:
    """Make the environment once, take a few steps and describe it. Raises `EnvError` as `make` does."""
    env = make(env_id)
    try:
        env.reset(seed=0)
        took = []
        for _ in range(3):
            start = time.perf_counter()
            info = env.step(np.zeros(env.action_space.shape, np.float32))[-1]
            took.append(time.perf_counter() - start)
        low, high = env.low.copy(), env.high.copy()
        low.setflags(write=False)
        high.setflags(write=False)
        return EnvSpec(
            id=env_id,
            observation_shape=env.observation_space.shape,
            action_size=env.action_space.shape[0],
            action_low=low,
            action_high=high,
            max_episode_steps=env.spec.max_episode_steps,
            has_success="success" in info,
            score=SCORES.get(env_id),
            versions=_versions(env),
            note=_note(env_id),
            step_seconds=min(took),
        )
    finally:
        env.close()


class Prepared(gymnasium.Wrapper):
    """Flat float32 observations, float32 actions in [-1, 1], `info` reduced to "success"."""

    def __init__(self, env: gymnasium.Env, env_id: str):
        super().__init__(env)
        own, actions = env.observation_space, env.action_space
        if not (isinstance(actions, gymnasium.spaces.Box) and len(actions.shape) == 1):
            raise EnvError(f"Environment '{env_id}' takes actions {actions}; expected one box of numbers [A].")
        if not (np.isfinite(actions.low).all() and np.isfinite(actions.high).all()):
            raise EnvError(f"Environment '{env_id}' takes unbounded actions; expected finite bounds to map [-1, 1] to.")
        if isinstance(own, gymnasium.spaces.Box) and len(own.shape) == 3:
            raise EnvError(f"Environment '{env_id}' gives images {own.shape}; expected flat observations.")
        self.id = env_id
        self.low, self.high = actions.low.astype(np.float32), actions.high.astype(np.float32)
        self._centre, self._scale = (self.high + self.low) / 2, (self.high - self.low) / 2
        self._same = bool((self.low == -1).all() and (self.high == 1).all())
        self._own = None if isinstance(own, gymnasium.spaces.Box) else own
        try:
            size = gymnasium.spaces.utils.flatdim(own)
        except (NotImplementedError, ValueError) as error:
            raise EnvError(f"Environment '{env_id}' gives observations {own}; expected flat ones.") from error
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (size,), np.float32)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, actions.shape, np.float32)

    def _flat(self, observation) -> np.ndarray:
        if self._own is not None:
            observation = gymnasium.spaces.utils.flatten(self._own, observation)
        return np.array(observation, np.float32).reshape(-1)

    def reset(self, *, seed: int | None = None, options: dict | None = None):
        if options is None:  # some environments take no options
            observation, _ = self.env.reset(seed=seed)
        else:
            observation, _ = self.env.reset(seed=seed, options=options)
        return self._flat(observation), {}

    def step(self, action):
        action = np.minimum(np.maximum(np.asarray(action, np.float32), -1), 1)
        if action.shape != self.low.shape:
            raise EnvError(f"Environment '{self.id}' takes actions {self.low.shape}; got {action.shape}.")
        if not np.isfinite(action).all():
            raise DivergenceError(f"Environment '{self.id}' was given an action that is not a number: {action}.")
        if not self._same:
            action = self._centre + action * self._scale
        observation, reward, terminated, truncated, info = self.env.step(action)
        success = info.get("success", info.get("is_success"))
        info = {} if success is None else {"success": float(success)}
        return self._flat(observation), float(reward), bool(terminated), bool(truncated), info


def _find(env_id: str) -> gymnasium.envs.registration.EnvSpec:
    if not isinstance(env_id, str) or not env_id:
        raise EnvError(f"Expected an environment id; got {env_id!r}: use for example {EXAMPLES}.")
    if ":" in env_id:  # would import a module named by the id, which may come from a data file
        raise EnvError(f"Environment '{env_id}' names a module; import it yourself and give the id alone.")
    with _quiet():
        if ogbench.claims(env_id):
            with _needs("ogbench", env_id):
                return ogbench.resolve(env_id)
        if env_id not in gymnasium.registry:
            hint = ""
            try:
                with contextlib.redirect_stderr(io.StringIO()):  # prints what `_note` says of Adroit
                    gymnasium.register_envs(importlib.import_module("gymnasium_robotics"))
            except ImportError:
                hint = f" (gymnasium-robotics is not installed: {INSTALL})"
            if env_id not in gymnasium.registry:
                raise unknown(env_id, list(gymnasium.registry), hint)
        return gymnasium.registry[env_id]


def unknown(env_id: str, names: list[str], hint: str = "") -> EnvError:
    """Return the error for an id that nothing answers to."""
    near = did_you_mean(env_id, names)
    near = near if near.startswith(" Did you mean") else f" Examples: {EXAMPLES}."
    return EnvError(f"Unknown environment '{env_id}'{hint}.{near}")


@contextlib.contextmanager
def _needs(package: str, env_id: str):
    try:
        yield
    except ImportError as error:
        raise EnvError(
            f"Environment '{env_id}' needs {package}, which is missing ({_line(error)}): {INSTALL}."
        ) from error


@contextlib.contextmanager
def _quiet():
    """Silence what third parties warn about at import and construction: casts, deprecations, no display."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _line(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".")


def _draws_with_mujoco(spec) -> bool:
    return callable(spec.entry_point) or spec.entry_point.startswith(
        ("ogbench.", "gymnasium.envs.mujoco", "gymnasium_robotics.envs.adroit")
    )


def _versions(env: gymnasium.Env) -> dict[str, str]:
    packages = ["gymnasium"]
    modules = {type(env.unwrapped).__module__, *(base.__module__ for base in type(env.unwrapped).__mro__)}
    for package, module in (("ogbench", "ogbench"), ("gymnasium-robotics", "gymnasium_robotics")):
        if any(name.split(".")[0] == module for name in modules):
            packages.append(package)
    if hasattr(env.unwrapped, "model"):
        packages.append("mujoco")
    return {package: importlib.metadata.version(package) for package in packages}


def _note(env_id: str) -> str:
    if ogbench.claims(env_id):
        return "Reward -1 until success (per object where there are several); success is judged before each action."
    if env_id.startswith("AdroitHand"):
        note = "Never terminates on success; ends at the time limit. Success of an episode: at any of its steps."
        dense = " The dense reward is not D4RL's, so there is no normalised score."
        return note if "Sparse" in env_id else note + dense
    return ""

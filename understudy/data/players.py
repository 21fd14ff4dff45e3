"""Scripted players that record OGBench data, one seeded episode at a time, in a worker process of `generate`.

The protocol is the one that OGBench's data sets were published with (seohongpark/ogbench, data_gen_scripts): the same
oracles (from the installed package), noise and episode lengths. An episode depends on (seed, its number) alone.
"""

from __future__ import annotations

import dataclasses
import functools
import io
import json
import re
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from understudy.errors import DataError, UserError

_NAME = re.compile(r"(?P<task>.+?)-(?P<kind>[a-z]+)(?P<single>-singletask(?:-task[1-5])?)?-v0")
KINDS = {"cube": ("play", "noisy"), "scene": ("play", "noisy"), "puzzle": ("play", "noisy"),
         "pointmaze": ("navigate", "stitch")}  # fmt: skip
SIZES = {
    "cube": ("cube-single", "cube-double", "cube-triple", "cube-quadruple", "cube-octuple"),
    "scene": ("scene",),
    "puzzle": ("puzzle-3x3", "puzzle-4x4", "puzzle-4x5", "puzzle-4x6"),
    "pointmaze": ("pointmaze-medium", "pointmaze-large", "pointmaze-giant", "pointmaze-teleport"),
}
# Probability that a cube is stacked on another, drawn for each episode from this range.
STACKING = {"single": (0.0, 0.0), "double": (0.0, 0.25), "triple": (0.05, 0.35), "quadruple": (0.1, 0.5),
            "octuple": (0.0, 0.35)}  # fmt: skip
REPORT_EVERY = 50  # steps between two messages of progress


@dataclasses.dataclass(frozen=True)
class Protocol:
    """How one data set is recorded.

    Attributes:
      task: the environment without its version, e.g. cube-single.
      kind: "play" (plans with correlated noise), "noisy" (closed loop with Gaussian noise), "navigate" (goal after
        goal) or "stitch" (one goal four cells away).
      rows: recorded steps of an episode; the last row holds no transition.
      noise: of the plan or the action, as published.
      random: share of actions drawn uniformly.
      task_env: id of the single task whose rewards are added, or None.
    """

    task: str
    kind: str
    rows: int
    noise: float
    random: float = 0.0
    task_env: str | None = None

    @property
    def family(self) -> str:
        return self.task.split("-")[0]


def names() -> list[str]:
    """Every data set that can be recorded; with -singletask or -singletask-task3 before -v0 it has rewards."""
    return [f"{task}-{kind}-v0" for family, tasks in SIZES.items() for task in tasks for kind in KINDS[family]]


def protocol(name: str) -> Protocol:
    """The published protocol of a data set's name (without "ogbench/"). Raises DataError where none is known."""
    match = _NAME.fullmatch(name)
    raw = f"{match['task']}-{match['kind']}-v0" if match else name
    if raw not in names():
        from understudy.errors import did_you_mean

        if re.match(r"(visual-|powderworld)", name):
            raise DataError(f"'{name}' has images, which are not recorded here; take the state version of it.")
        if re.match(r"(antmaze|humanoidmaze|antsoccer)-", name):
            raise DataError(f"'{name}' was recorded with trained walkers, which the ogbench package does not ship; "
                            f"download it from OGBench and give its path.")  # fmt: skip
        near = did_you_mean(raw, names())
        single = near.replace("-v0'?", f"{match['single']}-v0'?") if match and match["single"] else near
        raise DataError(f"No scripted player records '{name}'.{single}")
    task, kind = match["task"], match["kind"]
    task_env = name if match["single"] else None
    if kind in ("navigate", "stitch"):
        rows = 201 if kind == "stitch" else 2001 if task == "pointmaze-giant" else 1001
        return Protocol(task, kind, rows, 0.5, task_env=task_env)
    random = {"play": 0.0, "noisy": 0.2 if task.startswith("puzzle") else 0.1}[kind]
    return Protocol(task, kind, 1001, 0.1, random, task_env)


# --- the robot arm ---------------------------------------------------------------------------------------------------


class Arm:
    """The UR5e arm of cube, scene and puzzle, led from one random target to the next by the package's oracles."""

    def __init__(self, settings: Protocol):
        self.settings = settings
        self.env = _arm(settings.task)
        self.players = _oracles(self.env, settings)
        self.buttons = hasattr(self.env, "_cur_button_states")

    def episode(self, seed: int, number: int, progress: Callable[[int], None]) -> dict[str, np.ndarray]:
        """Columns [rows, ...] of one episode. `progress` is told of steps (negative where they are taken back)."""
        draws = _seed(seed, number)
        while True:
            recorded = self._attempt(draws, progress)
            draws = None  # another attempt goes on in the same stream
            if self.settings.task != "scene" or _in_sight(recorded["qpos"]):
                return recorded
            progress(-self.settings.rows)

    def _attempt(self, reset_seed: int | None, progress) -> dict[str, np.ndarray]:
        env, settings = self.env, self.settings
        observation, info = env.reset() if reset_seed is None else env.reset(seed=reset_seed)
        low, high = STACKING.get(settings.task.split("-")[-1], (0.5, 0.5))
        p_stack = np.random.uniform(low, high)
        deviation = np.random.uniform(0, settings.noise) * np.array([1, 1, 1, 3, 10.0])
        player = self.players[info["privileged/target_task"]]
        player.reset(observation, info)
        rows = _Rows(settings.rows)
        for step in range(settings.rows):
            if settings.random and np.random.rand() < settings.random:
                action = np.random.uniform(-1, 1, 5)
            else:
                action = np.array(player.select_action(observation, info))
                if settings.kind == "noisy":
                    action = action + np.random.normal(0, deviation)
            action = np.clip(action, -1, 1)
            following, _, _, _, info = env.step(action)
            if player.done:
                target = env.set_new_target(p_stack=p_stack)
                player = self.players[target[1]["privileged/target_task"]]
                player.reset(*target)
            extra = {"button_states": info["prev_button_states"]} if self.buttons else {}
            rows.add(observations=observation, actions=action, qpos=info["prev_qpos"], qvel=info["prev_qvel"], **extra)
            observation = following
            if (step + 1) % REPORT_EVERY == 0 or step + 1 == settings.rows:
                progress(step % REPORT_EVERY + 1)
        return rows.columns()


def _arm(task: str):
    """The environment in its data-collection mode, describing each state once instead of three times a step."""
    import gymnasium
    import ogbench.manipspace  # noqa: F401 registers
    from gymnasium.envs.registration import load_env_creator

    spec = gymnasium.spec(f"{task}-v0")
    base = load_env_creator(spec.entry_point)

    class Recorded(base):
        _known = None  # the description of the present state

        def reset(self, **kwargs):
            self._known = None
            return super().reset(**kwargs)

        def post_step(self):
            self._known = None
            super().post_step()

        def set_new_target(self, return_info=True, p_stack=0.5):
            super().set_new_target(return_info=False, p_stack=p_stack)
            self._known = None
            return (self.compute_observation(), self.get_reset_info()) if return_info else None

        def compute_ob_info(self):
            if self._known is None:
                self._known = super().compute_ob_info()
            return dict(self._known)

    return Recorded(**spec.kwargs, terminate_at_goal=False, mode="data_collection")


def _oracles(env, settings: Protocol) -> dict[str, Any]:
    """{kind of target: oracle}, with the settings that the data were published with."""
    if settings.kind == "play":
        from ogbench.manipspace.oracles.plan.button_plan import ButtonPlanOracle as Button
        from ogbench.manipspace.oracles.plan.cube_plan import CubePlanOracle as Cube
        from ogbench.manipspace.oracles.plan.drawer_plan import DrawerPlanOracle as Drawer
        from ogbench.manipspace.oracles.plan.window_plan import WindowPlanOracle as Window

        common = dict(env=env, noise=settings.noise, noise_smoothing=0.5)
    else:
        from ogbench.manipspace.oracles.markov.button_markov import ButtonMarkovOracle as Button
        from ogbench.manipspace.oracles.markov.cube_markov import CubeMarkovOracle as Cube
        from ogbench.manipspace.oracles.markov.drawer_markov import DrawerMarkovOracle as Drawer
        from ogbench.manipspace.oracles.markov.window_markov import WindowMarkovOracle as Window

        common = dict(env=env, min_norm=0.4)
    if settings.family == "cube":
        return {"cube": Cube(**common)}
    if settings.family == "puzzle":
        return {"button": Button(**common, gripper_always_closed=True)}
    return {"cube": Cube(**common), "button": Button(**common), "drawer": Drawer(**common), "window": Window(**common)}


def _in_sight(qpos: np.ndarray) -> bool:
    """Scene: the cube stays where a camera sees it, unless it is in the drawer; other episodes are recorded again."""
    y, z = qpos[:, 15], qpos[:, 16]
    return not ((y >= 0.29) | ((y <= -0.3) & ((z < 0.06) | (z > 0.08)))).any()


# --- the point mass --------------------------------------------------------------------------------------------------


class Point:
    """The point mass of pointmaze, led along shortest paths with Gaussian noise."""

    def __init__(self, settings: Protocol):
        import gymnasium
        import ogbench.locomaze  # noqa: F401 registers

        self.settings = settings
        self.env = gymnasium.make(f"{settings.task}-v0", terminate_at_goal=False, disable_env_checker=True).unwrapped
        free = self.env.maze_map == 0
        self.cells = [tuple(map(int, c)) for c in np.argwhere(free)]
        self.corners = [c for c in self.cells if not _hallway(free, *c)]
        self.subgoal = functools.cache(self._subgoal)

    def _subgoal(self, start: tuple[int, int], goal: tuple[int, int]) -> np.ndarray:
        return self.env.get_oracle_subgoal(self.env.ij_to_xy(start), self.env.ij_to_xy(goal))[0]

    def episode(self, seed: int, number: int, progress: Callable[[int], None]) -> dict[str, np.ndarray]:
        """Columns [rows, ...] of one episode."""
        env, settings = self.env, self.settings
        reset_seed = _seed(seed, number)
        env.action_space.seed(reset_seed)
        pick = lambda cells: cells[np.random.randint(len(cells))]
        start = pick(self.cells)
        goal = pick(self.corners) if settings.kind == "navigate" else pick(_at_distance(env.maze_map == 0, start, 4))
        task = dict(init_ij=start, goal_ij=goal)
        observation, _ = env.reset(seed=reset_seed, options=dict(task_info=task))
        rows = _Rows(settings.rows)
        for step in range(settings.rows):
            here = env.get_xy()
            direction = self.subgoal(env.xy_to_ij(here), env.xy_to_ij(env.cur_goal_xy)) - here
            direction = direction / (np.linalg.norm(direction) + 1e-6)
            action = np.clip(direction + np.random.normal(0, settings.noise, 2), -1, 1)
            following, _, _, _, info = env.step(action)
            if info["success"] and settings.kind == "navigate":
                env.set_goal(goal_xy=env.add_noise(env.ij_to_xy(pick(self.corners))))
            rows.add(observations=observation, actions=action, qpos=info["prev_qpos"], qvel=info["prev_qvel"])
            observation = following
            if (step + 1) % REPORT_EVERY == 0 or step + 1 == settings.rows:
                progress(step % REPORT_EVERY + 1)
        return rows.columns()


def _hallway(free: np.ndarray, i: int, j: int) -> bool:
    """Whether a cell is open on two opposite sides alone."""
    vertical, horizontal = (free[i - 1, j], free[i + 1, j]), (free[i, j - 1], free[i, j + 1])
    return (all(vertical) and not any(horizontal)) or (all(horizontal) and not any(vertical))


def _at_distance(free: np.ndarray, start: tuple[int, int], distance: int) -> list[tuple[int, int]]:
    """Free cells so many steps from `start`; `start` alone where there are none."""
    seen, front = {start}, [start]
    for _ in range(distance):
        around = [(i + di, j + dj) for i, j in front for di, dj in ((-1, 0), (0, -1), (1, 0), (0, 1))]
        front = [c for c in dict.fromkeys(around) if c not in seen and free[c]]
        seen.update(front)
    return front or [start]


# --- both ------------------------------------------------------------------------------------------------------------


class _Rows:
    """Columns that grow by one row at a time, as OGBench stores them."""

    def __init__(self, count: int):
        self.count, self.rows, self._columns = count, 0, {}

    def add(self, **row: np.ndarray) -> None:
        if not self._columns:
            kind = lambda k: np.int64 if k == "button_states" else np.float32
            self._columns = {k: np.empty((self.count, *np.shape(v)), kind(k)) for k, v in row.items()}
        for key, value in row.items():
            self._columns[key][self.rows] = value
        self.rows += 1

    def columns(self) -> dict[str, np.ndarray]:
        terminals = np.zeros(self.count, bool)
        terminals[-1] = True
        return self._columns | {"terminals": terminals}


def _seed(seed: int, number: int) -> int:
    """Seed the draws of one episode (the oracles use the global `np.random`); returns a seed for the reset."""
    draws, reset = np.random.SeedSequence([seed, number]).generate_state(2)
    np.random.seed(int(draws))
    return int(reset)


def player(settings: Protocol):
    """What records the episodes of a protocol."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # casts, deprecations, no display
        return Point(settings) if settings.family == "pointmaze" else Arm(settings)


def main() -> None:
    """A worker: reads the protocol, then numbers of episodes, and answers with progress and columns."""
    from understudy.envs.process import connect

    channel = connect()
    try:
        settings = json.loads(channel.receive()[1])
        recorder = player(Protocol(**settings["protocol"]))
        channel.send(b"R")
        while True:
            number = json.loads(channel.receive()[1])
            columns = recorder.episode(settings["seed"], number, lambda n: channel.send_json(b"P", n))
            buffer = io.BytesIO()
            np.savez(buffer, **columns)
            channel.send(b"D", buffer.getvalue())
    except (EOFError, BrokenPipeError):
        pass  # the parent has all it wants, or is gone
    except UserError as error:
        channel.send(b"E", str(error).encode())
    except ImportError as error:
        channel.send(b"E", f"the package ogbench does not import ({error}); pip install 'understudy[envs]'".encode())
    except Exception as error:
        channel.send(b"E", f"the player failed with {type(error).__name__}: {error}".encode())
        raise

"""Rewards of one task for data that were recorded without them, by the rules of the benchmark's own package.

- OGBench single tasks: `ogbench.relabel_utils` of the installed package. Since ogbench 1.2.0 a reward belongs to the
  state before the action, r(s) and not r(s'), in data and environments alike; a state at the goal is final.
- AdroitHandDoorSparse-v1 (gymnasium-robotics 1.4.2): 10 where the door's hinge (column 28 of the next observation) has
  reached 1.35, else -0.1; success ends nothing.
"""

from __future__ import annotations

import dataclasses
import pathlib
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from understudy.data.checks import Report
from understudy.data.dataset import Dataset
from understudy.errors import DataError, UserError

_FAMILIES = ("cube", "scene", "puzzle", "pointmaze", "antmaze", "humanoidmaze", "antsoccer")
_NAME = re.compile(
    rf"(?P<task>(?:{'|'.join(_FAMILIES)})(?:-[a-z0-9]+?)*?)(?:-(?:play|noisy|navigate|stitch|explore))?"
    r"(?P<single>-singletask(?:-task(?P<number>\d+))?)?-v\d+"
)
DOOR = "AdroitHandDoorSparse-v1"
HINGE, OPEN = 28, 1.35  # column of the door's hinge angle, radians where the environment counts success
RULES = f"OGBench single tasks and {DOOR}"


def family(env: str | None) -> str | None:
    """The OGBench family of an environment's or data set's name (cube, pointmaze, ...), or None."""
    match = _NAME.fullmatch(env or "")
    return match["task"].split("-")[0] if match else None


def is_single(env: str | None) -> bool:
    """Whether the name is that of an OGBench single task, which defines rewards."""
    match = _NAME.fullmatch(env or "")
    return match is not None and match["single"] is not None


def env_of(stem: str) -> str | None:
    """The environment that a file's name stands for, if it is an OGBench single task."""
    stem = stem.removesuffix("-val")
    return stem if is_single(stem) else None


def _same_task(a: str, b: str) -> bool:
    """Whether two names mean one task; a default task is not known to be a numbered one."""
    a, b = _NAME.fullmatch(a), _NAME.fullmatch(b)
    return a is not None and b is not None and (a["task"], a["number"]) == (b["task"], b["number"])


def apply(
    parts: dict, columns: Mapping[str, Any], kind: str, env: str | None, named: str | None, wanted: str | None,
    report: Report,
) -> dict:  # fmt: skip
    """Parts of a data set with the rewards and terminations that `env` defines, where they are to be derived.

    Args:
      parts: as `formats.arrange` returns them. columns: the file's. kind: its layout.
      env: the environment. named: the one that the file's name stands for.
      wanted: "file", "relabel" or None, see `load`.

    Raises:
      DataError: what the rule needs is not in the file.
    """
    recorded = parts["rewards"] is not None
    if wanted == "file":
        if not recorded:
            report.error("there are no rewards in the file", "leave out rewards='file'", "rewards")
        return parts
    if env == DOOR:
        return _door(parts, report)
    if recorded and env == "AdroitHandDoor-v1":
        report.info("D4RL's dense rewards subtract the distance of hand and handle, those of AdroitHandDoor-v1 add it",
                    f"use env='{DOOR}', whose rewards are derived", "rewards")  # fmt: skip
    if not (kind.startswith("ogbench") and is_single(env)):
        if wanted == "relabel":
            report.error(f"no rule derives rewards for {env}", f"known are {RULES}", "rewards")
        elif not recorded:
            report.info("There are no rewards; algorithms that learn values need them",
                        f"name an environment that defines them (--env ID; {RULES})", "rewards")  # fmt: skip
        return parts
    if recorded and wanted is None:
        if named is not None and _same_task(named, env):
            return parts
        if named is None and "qpos" not in columns:
            report.info(f"The rewards are the file's own; nothing says that they are those of {env}", key="rewards")
            return parts
    rewards, masks, note = ogbench_rewards(parts, columns, env)
    if recorded and wanted is None and (other := int((np.asarray(parts["rewards"]) != rewards).sum())):
        report.warning(
            f"The file's own rewards were replaced by those of {env}; {other:,} of {len(rewards):,} differ",
            "to keep them, load the file in Python with understudy.data.load(..., rewards='file')", "rewards",
        )  # fmt: skip
    report.info(f"Rewards and terminations of {env} were derived {note}by the ogbench package's rule", key="rewards")
    return with_rewards(parts, rewards, masks == 0)


def with_rewards(parts: dict, rewards: np.ndarray, terminations: np.ndarray) -> dict:
    """Parts with other rewards and terminations; the ends of trajectories stay."""
    ends = np.zeros(len(rewards), bool)
    ends[np.cumsum(parts["lengths"]) - 1] = True
    return parts | dict(rewards=rewards, terminations=terminations, truncations=ends & ~terminations)


def _rows(parts: dict) -> np.ndarray:
    lengths = parts["lengths"]
    return np.arange(int(lengths.sum())) + np.repeat(np.arange(len(lengths)), lengths)


def _door(parts: dict, report: Report) -> dict:
    observations = parts["observations"]
    if not isinstance(observations, np.ndarray) or observations.shape[1:] != (39,):
        report.error(f"the observations do not have the 39 entries of {DOOR}", "name the environment they were "
                     "recorded in", "observations")  # fmt: skip
        return parts
    open_ = observations[_rows(parts) + 1, HINGE] >= OPEN
    which = np.repeat(np.arange(len(parts["lengths"])), parts["lengths"])
    solved = len(np.unique(which[open_]))
    report.info(
        f"Sparse rewards were derived from the hinge angle: 10 at {OPEN} rad or more after the step, else -0.1; "
        f"{solved} of {len(parts['lengths'])} trajectories reach it, and nothing terminates, as in {DOOR}",
        key="rewards",
    )
    return with_rewards(parts, np.where(open_, 10.0, -0.1).astype(np.float32), np.zeros(len(open_), bool))


def ogbench_rewards(parts: dict, columns: Mapping[str, Any], env: str) -> tuple[np.ndarray, np.ndarray, str]:
    """(rewards [N], masks [N], how) of an OGBench single task.

    From the recorded `qpos` (and `button_states`), else from the observations where these hold the positions. Raises
    DataError where neither does."""
    from understudy import envs

    prepared = envs.make(env)
    state = np.random.get_state()
    try:
        from ogbench.relabel_utils import relabel_dataset

        own = prepared.unwrapped
        own.reset()
        nq = int(own.model.nq)
        note, rows = "", parts.get("file_rows")
        if "qpos" in columns and rows is not None:
            known = {k: np.asarray(columns[k])[rows] for k in ("qpos", "button_states") if k in columns}
            if known["qpos"].ndim != 2 or known["qpos"].shape[1] != nq:
                raise DataError(f"qpos has the shape {list(known['qpos'].shape)} and {env} has {nq} joint positions; "
                                f"name the environment that the data were recorded in (--env ID).")  # fmt: skip
        else:
            known, note = {"qpos": _positions(parts, env, nq, own)}, "from the observations "
        if family(env) in ("scene", "puzzle") and "button_states" not in known:
            raise DataError(f"There are no button_states in the file, which the rewards of {env} depend on; use a file "
                            f"that has them (understudy data make writes them).")  # fmt: skip
        relabel_dataset(env, own, known)
    finally:
        np.random.set_state(state)
        prepared.close()
    return known["rewards"], known["masks"], note


def _positions(parts: dict, env: str, nq: int, own: Any) -> np.ndarray:
    """Joint positions [N, nq] as far as the observations hold them; what they do not hold is 0 and not looked at."""
    observations, kind = parts["observations"], family(env)
    width = observations.shape[1] if isinstance(observations, np.ndarray) and observations.ndim == 2 else 0
    fits = width >= 2 if kind != "cube" else width == 19 + 9 * int(own._num_cubes)
    if kind not in ("cube", "pointmaze", "antmaze", "humanoidmaze") or not fits:
        raise DataError(f"There is no qpos in the file, which the rewards of {env} depend on; use a file that has it "
                        f"(understudy data make writes it), or one with rewards and masks.")  # fmt: skip
    rows = _rows(parts)
    qpos = np.zeros((len(rows), nq), np.float64)
    if kind != "cube":
        qpos[:, :2] = observations[rows, :2]
        return qpos
    for i in range(int(own._num_cubes)):  # the arm and gripper have 14 joints and 19 entries; a cube 7 and 9
        position = observations[rows, 19 + 9 * i : 22 + 9 * i].astype(np.float64)
        qpos[:, 14 + 7 * i : 17 + 7 * i] = position / 10 + [0.425, 0.0, 0.0]
    return qpos


def stored(dataset: Dataset, env: str | None, wanted: str | None) -> Dataset:
    """A data set that was read from a store, for another environment or with other rewards."""
    env = env or dataset.env
    if wanted == "none":
        dataset = dataclasses.replace(dataset, rewards=None)
        if is_single(dataset.env):  # whose terminations are the task's, as its rewards are
            dataset = dataclasses.replace(dataset, terminations=np.zeros_like(dataset.terminations))
    if wanted in ("none", "file") or (wanted is None and env == dataset.env):
        return dataclasses.replace(dataset, env=env)
    report = Report(dataset.name)
    names = ("observations", "actions", "rewards", "terminations", "truncations", "lengths")
    parts = {k: getattr(dataset, k) for k in names}
    kind = "ogbench" if family(env) else "flat"
    parts = apply(parts, {}, kind, env, dataset.env if is_single(dataset.env) else None, wanted, report)
    return dataclasses.replace(dataset, **parts, env=env, notes=(*dataset.notes, *report.notes))


def check_timing(path: pathlib.Path, data: Dataset, report: Report) -> None:
    """Compare recorded rewards of an OGBench single task with the package's rule, as they stand and one step later."""
    if data.rewards is None or family(data.env) not in ("cube", "pointmaze", "antmaze", "humanoidmaze"):
        return
    parts = {"observations": data.observations, "lengths": data.lengths}
    try:
        expected, _, _ = ogbench_rewards(parts, {}, data.env)
    except UserError as error:
        report.info(f"The reward timing was not checked ({error})", key="rewards")
        return
    inner = ~data.ends[:-1]
    now, later = np.mean(data.rewards == expected), np.mean(data.rewards[:-1][inner] == expected[1:][inner])
    if now > 0.9999:
        report.info("The rewards agree with the environment's, r(s) of the state before the action", key="rewards")
    elif later > 0.9999:
        report.warning(
            "The rewards belong to the state after the action, as before ogbench 1.2.0; the environment pays for the "
            "state before it", "load with rewards='relabel'", "rewards",
        )  # fmt: skip
    else:
        report.warning(f"{1 - now:.2%} of the rewards differ from those that {data.env} defines",
                       "load with rewards='relabel'", "rewards")  # fmt: skip

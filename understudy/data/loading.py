"""Find a data set by name or path, read it, and say what is in it."""

from __future__ import annotations

import contextlib
import os
import pathlib
import re
from typing import Any

import numpy as np

from understudy.data import formats, players, relabel, store
from understudy.data.checks import Finding, Report, not_vectors
from understudy.data.dataset import Dataset, finish, shapes
from understudy.errors import DataError, UserError, did_you_mean

SUFFIXES = (".npz", ".hdf5", ".h5", "")
REWARDS = ("file", "relabel", "none")


def folders() -> list[pathlib.Path]:
    """Where data sets are looked up by name, first to last."""
    own = os.environ.get("UNDERSTUDY_DATA")
    home = pathlib.Path.home()
    places = [pathlib.Path("data"), home / ".cache" / "understudy" / "data", home / ".ogbench" / "data"]
    return [pathlib.Path(own).expanduser(), *places] if own else places


def locate(name_or_path: str | os.PathLike) -> pathlib.Path:
    """The file or folder that a name or path means.

    A name such as ogbench/cube-single-play-singletask-v0 is looked up in $UNDERSTUDY_DATA, ./data,
    ~/.cache/understudy/data and ~/.ogbench/data, also as the reward-free file that it can be relabelled from.

    Raises:
      DataError: there is none; says how to make it, or what is near.
    """
    path = pathlib.Path(name_or_path).expanduser()
    text = os.fspath(name_or_path)
    name = text.removeprefix("ogbench/")
    beside: list[str] = []
    with contextlib.suppress(OSError, ValueError):  # no right to look, or no possible name
        if path.exists():
            return path
        if path.is_symlink():
            raise DataError(f"{path} is a link to {path.readlink()}, which is not there; mend the link.")
        beside = [p.name for p in path.parent.iterdir()]
    if not _looks_like_name(text):
        near = did_you_mean(path.name, beside)
        near = near if near.startswith(" Did") else " Check the path; names: understudy list datasets."
        raise DataError(f"There is no file {path}.{near}")
    raw = re.sub(r"-singletask(-task\d+)?(?=-v\d+$)", "", name)
    for wanted in dict.fromkeys((name, raw)):
        for folder in folders():
            for stem in dict.fromkeys((text, wanted, f"ogbench/{wanted}")):
                for suffix in SUFFIXES:
                    found = folder / f"{stem}{suffix}"
                    if found.exists():
                        return found
    places = ", ".join(str(f) for f in folders())
    if relabel.family(name) is None:
        from understudy.registry import datasets

        files = [f for f in beside if f.endswith(SUFFIXES[:-1])]
        near = did_you_mean(name, [n.removeprefix("ogbench/") for n in datasets()] + files)
        if near.endswith("-v0'?"):
            near = near.replace("'", "'ogbench/", 1)
        near = near if near.startswith(" Did") else " Check the path; names: understudy list datasets."
        raise DataError(f"There is no file or data set '{text}'.{near}")
    try:
        players.protocol(name)
    except DataError as error:  # nothing here could make it
        raise DataError(f"The data set '{text}' is not in {places}. {error}") from None
    full = text if text.startswith("ogbench/") else f"ogbench/{text}"
    raise DataError(f"The data set '{text}' is not in {places}; make it with: understudy data make {full}")


def _looks_like_name(text: str) -> bool:
    return re.fullmatch(r"(ogbench/)?[A-Za-z0-9][\w.-]*", text) is not None and not text.endswith(SUFFIXES[:-1])


def load(
    name_or_path: str | os.PathLike,
    *,
    env: str | None = None,
    rewards: str | None = None,
    action_range: tuple[Any, Any] | None = None,
) -> Dataset:
    """Load a data set.

    Args:
      name_or_path: ogbench/NAME, or an OGBench .npz, a D4RL .hdf5, or a folder that `data.write` wrote.
      env: environment id; by default the one that the file names. Rewards are derived where it defines them and the
        file does not (OGBench single tasks, AdroitHandDoorSparse-v1).
      rewards: "file": as recorded; "relabel": derive them; "none": leave them out. Default: whichever fits `env`.
      action_range: (low, high) that the actions were recorded in, mapped to [-1, 1].

    Returns:
      A `Dataset`; its notes say what was changed.

    Raises:
      DataError: no such data, a damaged file, or a breach of the schema, with the column and first row.
    """
    path = locate(name_or_path)
    report = Report(str(name_or_path))
    dataset, _ = _read(path, env, rewards, action_range, report, _name(name_or_path, path))
    return dataset


def _name(name_or_path, path: pathlib.Path) -> str:
    text = os.fspath(name_or_path)
    return text if text.startswith("ogbench/") and not pathlib.Path(text).exists() else path.stem


def _read(path, env, rewards, action_range, report: Report, name: str) -> tuple[Dataset | None, str]:
    """(data set or None where `report` keeps an error, layout)."""
    if rewards is not None and rewards not in REWARDS:
        raise DataError(f"rewards is {rewards!r}; give one of {', '.join(REWARDS)}, or nothing.")
    if path.is_dir():
        if action_range is not None:
            raise DataError(f"{path} is a store, whose actions are already scaled; leave out the action range.")
        dataset = store.open(path)
        return relabel.stored(dataset, env, rewards), "store"
    with formats.opened(path) as columns:
        kind = formats.layout(columns)
        named = relabel.env_of(name.removeprefix("ogbench/")) or relabel.env_of(path.stem)
        if named is None and kind == "flat":
            named = _safe_id(columns.attributes.get("env_id"))
        env = env or named
        parts = formats.arrange(columns, kind, report)
        if parts is None:
            return None, kind
        if rewards == "none":
            parts["rewards"] = None
            parts["terminations"] = np.zeros_like(parts["terminations"]) if kind != "flat" else parts["terminations"]
        else:
            parts = relabel.apply(parts, columns, kind, env, relabel.env_of(path.stem), rewards, report)
        parts.pop("file_rows", None)
    action_range = action_range or _range_of(env, parts["actions"], report)
    dataset = finish(parts, report, name=name, source=str(path), sha256=formats.sha256(path), env=env,
                     action_range=action_range)  # fmt: skip
    return dataset, kind


def _safe_id(text: str | None) -> str | None:
    """An environment id that a file names; nothing that could name a module to import."""
    return text if text and re.fullmatch(r"[\w.-]+(/[\w.-]+)?", text) else None


def _range_of(env: str | None, actions: np.ndarray, report: Report) -> tuple[Any, Any] | None:
    """The environment's own action range, where the actions do not lie in [-1, 1] but do lie in that."""
    if env is None or relabel.family(env) or env.startswith("AdroitHand"):
        return None
    from understudy import envs

    try:
        spec = envs.describe(env)
    except UserError:  # whoever needs the environment will say so
        return None
    low, high = spec.action_low, spec.action_high
    if low.shape != actions.shape[1:] or ((low == -1).all() and (high == 1).all()):
        return None
    if np.abs(actions).max(initial=0) <= 1 + 1e-5:
        report.info(f"The actions lie in [-1, 1] and are taken as already scaled from the range of {env}",
                    "if they are not, give --action-range LOW HIGH", "actions")  # fmt: skip
        return None
    if ((actions >= low - 1e-5) & (actions <= high + 1e-5)).all():
        report.info(f"The actions were scaled from the range of {env} to [-1, 1]", key="actions")
        return low, high
    return None


# --- describing ------------------------------------------------------------------------------------------------------


def info(name_or_path: str | os.PathLike, *, env: str | None = None) -> dict[str, Any]:
    """What is in a data set, as plain numbers and strings. Raises DataError as `load` does."""
    path = locate(name_or_path)
    report = Report(str(name_or_path))
    data, kind = _read(path, env, None, None, report, _name(name_or_path, path))
    _compare(data, env, report)
    lengths = np.asarray(data.lengths)
    sizes = path.rglob("*") if path.is_dir() else [path]
    about = {
        "name": data.name,
        "path": str(path),
        "layout": {"flat": "D4RL flat"}.get(kind, kind.replace("ogbench", "OGBench")),
        "env": data.env,
        "transitions": data.size,
        "episodes": data.episodes,
        "length": {"min": int(lengths.min()), "median": float(np.median(lengths)), "max": int(lengths.max())},
        "observation_shape": _plain(shapes(data.observations)),
        "action_size": int(data.actions.shape[1]),
        "action_range": [float(data.actions.min()), float(data.actions.max())],
        "rewards": None,
    }
    if data.rewards is not None:
        rewards = np.asarray(data.rewards)
        about["rewards"] = {"min": float(rewards.min()), "mean": float(rewards.mean(dtype=np.float64)),
                            "max": float(rewards.max())}  # fmt: skip
        about["share_at_best_reward"] = float((rewards == rewards.max()).mean())
    terminations = np.asarray(data.terminations)
    which = np.repeat(np.arange(data.episodes), lengths)
    about |= {
        "share_terminated": float(terminations.mean()),
        "episodes_with_termination": int(len(np.unique(which[terminations]))),
        "episodes_cut_off": int(np.asarray(data.truncations).sum()),
        "sha256": data.sha256,
        "bytes": sum(p.stat().st_size for p in sizes if p.is_file()),
        "notes": list(data.notes),
    }
    return about


def _compare(data: Dataset, env: str | None, report: Report) -> None:
    """An error where the data do not fit the environment that was named. Raises EnvError where there is none such."""
    if env is None:
        return
    from understudy import envs

    spec, mine = envs.describe(env), shapes(data.observations)
    if not isinstance(mine, dict) and (mine, data.actions.shape[1]) != (spec.observation_shape, spec.action_size):
        report.error(
            f"the observations are {list(mine)} and the actions {data.actions.shape[1]} numbers, those of {env} "
            f"{list(spec.observation_shape)} and {spec.action_size}",
            "name the environment that the data were recorded in", "observations",
        )  # fmt: skip


def _plain(shape: Any) -> Any:
    return {k: _plain(v) for k, v in shape.items()} if isinstance(shape, dict) else list(shape)


def check(name_or_path: str | os.PathLike, *, env: str | None = None) -> list[Finding]:
    """Every error, warning and remark on a data set, errors first; never raises for what is wrong with the data.

    Beyond what `load` checks: the checksums of a store, and the reward timing of OGBench single tasks."""
    report = Report(str(name_or_path), keep=True)
    try:
        path = locate(name_or_path)
        if path.is_dir():
            store.verify(path)
        data, kind = _read(path, env, None, None, report, _name(name_or_path, path))
        if data is not None:
            if wrong := not_vectors(data.observations):
                report.append(Finding("error", wrong, "flatten or encode them first", "observations"))
            _compare(data, env, report)
            if kind.startswith("ogbench"):
                relabel.check_timing(path, data, report)
            rewards = "without rewards" if data.rewards is None else "with rewards"
            report.info(f"{data.size:,} transitions in {data.episodes:,} trajectories, {rewards}")
    except UserError as error:
        report.append(Finding("error", str(error)))
    order = {"error": 0, "warning": 1, "info": 2}
    return sorted(report, key=lambda f: order[f.level])

"""Files of other projects, read into the one schema: OGBench .npz, D4RL flat .hdf5, and flat arrays in general.

Only numbers are read: no pickled objects, no links out of a file, no code. What a flag means differs:

- OGBench: `terminals` is the end of a trajectory, `masks` (single-task) is 1 - success. As published a trajectory has
  T+1 rows, whose last holds no transition; `ogbench.load_dataset` makes from it rows with `next_observations`, or rows
  with `valids` and every trajectory's last two `terminals` set. All three are read.
- D4RL: `terminals` is a real termination, `timeouts` a time-out. Without `next_observations` the last transition of a
  trajectory that timed out has no successor and is left out, as D4RL's own q-learning view does.
- Gymnasium's words `terminations` and `truncations` are read as D4RL's.
"""

from __future__ import annotations

import contextlib
import hashlib
import pathlib
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from understudy.data.checks import Report, check_column, check_flags
from understudy.data.dataset import Tree, leaves, named_map, tree_map
from understudy.errors import DataError, did_you_mean

KEYS = ("observations", "actions", "rewards", "masks", "terminals", "timeouts", "terminations", "truncations",
        "next_observations", "valids", "qpos", "qvel", "button_states")  # fmt: skip
# What the readers raise on the bytes of a file that is not whole; NotImplementedError and RuntimeError where a flipped
# bit asks for a compression or a version that there is none of.
DAMAGED = (zipfile.BadZipFile, zlib.error, OSError, EOFError, RuntimeError)


# --- files -----------------------------------------------------------------------------------------------------------


class Columns(Mapping):
    """The named arrays of an open file; each is read when it is asked for. `attributes` are an .hdf5's own words."""

    def __init__(self, keys, read, attributes: dict[str, str] | None = None):
        self._keys, self._read, self.npz, self.attributes = list(keys), read, attributes is None, attributes or {}

    def __getitem__(self, key: str) -> np.ndarray:
        if key not in self._keys:
            raise KeyError(key)
        return self._read(key)

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)


@contextlib.contextmanager
def opened(path: pathlib.Path) -> Iterator[Columns]:
    """Open an .npz or .hdf5 file by its content, not its name. Raises DataError where it is neither or is damaged."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(64)
    except OSError as error:
        raise DataError(f"{path} could not be read ({error.strerror or error}); check its rights.") from None
    if size == 0:
        raise DataError(f"{path} is empty; copy or make it again.")
    if start[:4] == b"PK\x03\x04":
        kind = _npz
    elif start[:8] == b"\x89HDF\r\n\x1a\n":
        kind = _hdf5
    else:
        raise DataError(f"{path} is {_guess(start)}; expected OGBench .npz or D4RL .hdf5, told by its content.")
    with kind(path) as columns:
        yield columns


def _guess(start: bytes) -> str:
    if start.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer, not the file itself (run git lfs pull)"
    if start[:6] == b"\x93NUMPY":
        return "a single .npy array"
    if start.lstrip()[:1] == b"<":
        return "a web page, not a data file (a download that failed?)"
    if start[:2] in (b"\x80\x04", b"\x80\x05", b"\x80\x03", b"\x80\x02"):
        return "a pickle, which is never opened"
    if start[:4] == b"PK\x05\x06":
        return "an archive with nothing in it"
    return "of a kind that is not known"


@contextlib.contextmanager
def _npz(path: pathlib.Path) -> Iterator[Columns]:
    damaged = f"{path} is damaged or cut short"
    try:
        archive = np.load(path, allow_pickle=False)
    except (*DAMAGED, ValueError) as error:
        raise DataError(f"{damaged} ({error}); copy or make it again.") from None

    def read(key: str) -> np.ndarray:
        try:
            return archive[key]
        except DAMAGED as error:
            raise DataError(f"{damaged} at '{key}' ({error}); copy or make it again.") from None
        except MemoryError:
            raise DataError(f"{path} does not fit into memory at '{key}'; use a smaller data set.") from None
        except ValueError as error:
            if "allow_pickle" in str(error):
                raise DataError(
                    f"{path} holds Python objects in '{key}', which are never opened; write it as an array of numbers."
                ) from None
            raise DataError(f"{damaged} at '{key}' ({error}); copy or make it again.") from None

    with archive:
        yield Columns(archive.files, read)


@contextlib.contextmanager
def _hdf5(path: pathlib.Path) -> Iterator[Columns]:
    import h5py

    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise DataError(f"{path} is damaged or cut short ({error}); copy or make it again.") from None

    def own(name: str) -> bool:  # a link could lead to any other file
        return isinstance(file.get(name, getlink=True), h5py.HardLink)

    def read(key: str) -> np.ndarray:
        try:
            item = file[key]
            if item.is_virtual or item.external:
                raise DataError(f"{path} keeps '{key}' in other files; copy it into one file.")
            if item.dtype.kind not in "fiub":
                raise DataError(f"{path} holds {item.dtype} values in '{key}'; expected an array of numbers.")
            return item[...]
        except (*DAMAGED, KeyError, ValueError, TypeError) as error:
            raise DataError(f"{path} is damaged at '{key}' ({error}); copy or make it again.") from None

    with file:
        try:
            names = [k for k in file if own(k)]
            keys = [k for k in names if isinstance(file[k], h5py.Dataset)]
            words = {k: str(v) for k, v in file.attrs.items() if isinstance(v, str | np.str_)}
        except (*DAMAGED, KeyError, ValueError, TypeError) as error:
            raise DataError(f"{path} is damaged or cut short ({error}); copy or make it again.") from None
        if "actions" not in keys:
            groups = [k for k in names if k not in keys]
            what = {"data": "robomimic", "episode_0": "Minari"}
            for group, project in what.items():
                if group in groups:
                    raise DataError(f"{path} has the layout of {project}, which is not read; expected D4RL's flat one "
                                    f"(observations, actions, rewards, terminals, timeouts).")  # fmt: skip
        yield Columns(keys, read, words)


def sha256(path: pathlib.Path) -> str:
    """SHA-256 of a file, read in pieces."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{path} could not be read ({error.strerror or error}); check the disk.") from None


# --- layouts ---------------------------------------------------------------------------------------------------------


def layout(columns: Columns) -> str:
    """Which layout a file has: "ogbench", "ogbench next", "ogbench valids" or "flat"."""
    if {"timeouts", "truncations", "terminations"} & set(columns) or not (columns.npz or "masks" in columns):
        return "flat"
    if "valids" in columns:
        return "ogbench valids"
    return "ogbench next" if "next_observations" in columns else "ogbench"


def arrange(columns: Mapping[str, Any], kind: str, report: Report) -> dict | None:
    """The parts of a `Dataset` (all but names, ranges and notes), and of OGBench files the row in the file of each
    transition, "file_rows". None where `report` keeps an error."""
    required = ["observations", "actions"] if kind == "flat" else ["observations", "actions", "terminals"]
    for key in required:
        if key not in columns:
            others = [k for k in columns if k not in KEYS]
            near = did_you_mean(key, others) if others else ""
            mend = f"name the column '{key}'" + (f".{near}" if near.startswith(" Did") else "")
            report.error(f"there is no '{key}' among its columns ({', '.join(sorted(columns)) or 'none'})", mend, key)
    if report.failed:
        return None
    return flat(columns, report) if kind == "flat" else _ogbench(columns, kind, report)


def _lengths(columns: Mapping[str, Any], n: int, report: Report) -> None:
    """Every column has one row for each of the n actions."""
    for key, column in columns.items():
        for name, x in leaves(column, key).items():
            rows = len(x) if np.ndim(x) else 0
            if rows != n:
                report.error(f"{name} has {rows:,} rows, actions has {n:,}; expected as many",
                             "write one row a step in every column", name)  # fmt: skip


def _needed(columns: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    return {k: columns[k] for k in keys if k in columns}


def _observations(tree: Tree, key: str, report: Report) -> Tree:
    tree = named_map(lambda name, x: check_column(x, name, report), tree, key)
    for name, x in leaves(tree, key).items():
        if x.ndim < 2:
            report.error(f"{name} has the shape {list(x.shape)}; expected [N, ...]", "write one row a step", name)
    return tree


def _ogbench(columns: Mapping[str, Any], kind: str, report: Report) -> dict | None:
    columns = _needed(columns, "observations", "actions", "terminals", "rewards", "masks", "valids",
                      "next_observations")  # fmt: skip
    n = len(columns["actions"]) if np.ndim(columns["actions"]) else 0
    if n == 0:
        report.error("there are no rows", "copy or make it again")
        return None
    _lengths(columns, n, report)
    if report.failed:
        return None
    marks = check_flags(columns["terminals"], "terminals", report)
    observations = _observations(columns["observations"], "observations", report)
    if kind == "ogbench next":
        ends, used = marks.copy(), np.ones(n, bool)
        if not report.failed and not ends[-1]:
            report.warning("The last row ends no trajectory; it is taken as a time-out", key="terminals", row=n - 1)
            ends[-1] = True
    else:
        last = marks if kind == "ogbench" else ~check_flags(columns["valids"], "valids", report)
        if report.failed:
            return None
        key = "terminals" if kind == "ogbench" else "valids"
        if not last.any():
            report.warning(f"No row of {key} marks a trajectory's end: all {n:,} rows are taken as one trajectory",
                           key=key)  # fmt: skip
        elif not last[-1]:
            report.warning("The last row ends no trajectory (a file that was cut short?)", key=key, row=n - 1)
        last = last.copy()
        last[-1] = True
        alone = last & np.concatenate([[True], last[:-1]])  # trajectories of one observation
        if alone.any():
            row = int(np.argmax(alone))
            report.warning(f"{int(alone.sum()):,} trajectories have no transition and were left out", key=key, row=row)
            observations = tree_map(lambda x: x[~alone], observations)
        used = ~last
        if not used.any():
            report.error("no row holds a transition: every one ends a trajectory",
                         f"{key} is to be set in a trajectory's last row alone", key)  # fmt: skip
            return None
        ends = np.concatenate([last[1:], [True]])[used]
    rows = np.flatnonzero(used)
    actions = check_column(columns["actions"][used], "actions", report, ndim=2, rows=rows)
    rewards, terminations = None, np.zeros(len(rows), bool)
    if "rewards" in columns:
        rewards = check_column(columns["rewards"][used], "rewards", report, ndim=1, rows=rows)
    if "masks" in columns:
        terminations = ~check_flags(columns["masks"], "masks", report)[used]
    elif rewards is not None:
        report.warning("Without masks no state counts as final", "add masks = 1 - success", "masks")
    if kind == "ogbench next" and not report.failed:
        following = _observations(columns["next_observations"], "next_observations", report)
        observations = _followed(observations, following, ends, report)
    if report.failed:
        return None
    _suspect(terminations, ends, report)
    return _parts(observations, actions, rewards, terminations, ends) | {"file_rows": rows}


def flat(columns: Mapping[str, Any], report: Report) -> dict | None:
    """Parts of a data set from one row a step (see `from_arrays`), under D4RL's or Gymnasium's words."""
    words = {"terminations": "terminals", "truncations": "timeouts"}
    columns = {k: columns.get(k, columns.get(old)) for k, old in words.items()} | _needed(
        columns, "observations", "actions", "rewards", "next_observations", "masks"
    )
    columns = {k: v for k, v in columns.items() if v is not None}
    n = len(columns["actions"]) if np.ndim(columns["actions"]) else 0
    if n == 0:
        report.error("there are no rows", "copy or make it again")
        return None
    _lengths({k: v for k, v in columns.items() if k != "observations"}, n, report)
    if report.failed:
        return None
    none = np.zeros(n, bool)
    terminations = check_flags(columns["terminations"], "terminations", report) if "terminations" in columns else none
    if "masks" in columns and "terminations" not in columns:
        terminations = ~check_flags(columns["masks"], "masks", report)
    timeouts = check_flags(columns["truncations"], "truncations", report) if "truncations" in columns else none
    ends = terminations | timeouts
    observations = _observations(columns["observations"], "observations", report)
    actions = check_column(columns["actions"], "actions", report, ndim=2)
    rewards = None
    if "rewards" in columns:
        rewards = check_column(columns["rewards"], "rewards", report, ndim=1)
    if report.failed:
        return None
    if not ends.any():
        report.warning(f"Neither terminations nor truncations mark a trajectory's end: all {n:,} rows are taken as one "
                       f"trajectory", "set timeouts (truncations) where each was cut off", "truncations")  # fmt: skip
    elif not ends[-1]:
        report.info("The last row ends no trajectory and is taken as a time-out", key="truncations")
    ends[-1] = True
    count = int(ends.sum())
    given = {name: len(x) for name, x in leaves(observations).items()}
    if all(rows == n + count for rows in given.values()) and "next_observations" not in columns:
        _suspect(terminations, ends, report)
        return _parts(observations, actions, rewards, terminations, ends)
    _lengths({"observations": observations}, n, report)
    if report.failed:
        return None
    if "next_observations" in columns:
        following = _observations(columns["next_observations"], "next_observations", report)
        observations = _followed(observations, following, ends, report)
        if report.failed:
            return None
        _suspect(terminations, ends, report)
        return _parts(observations, actions, rewards, terminations, ends)
    _suspect(terminations, ends, report)
    final, dropped = ends & terminations, ends & ~terminations
    if dropped.any():
        report.info(f"The last transition of {int(dropped.sum()):,} trajectories was left out: it has no successor")
    if final.any():
        report.info(f"{int(final.sum()):,} final states are not recorded; the state before stands in for each (none is "
                    f"bootstrapped from)")  # fmt: skip
    # A trajectory of a single row that timed out has no transition at all.
    alone = dropped & np.concatenate([[True], ends[:-1]])
    keep = ~dropped
    if not keep.any():
        report.error("no row has a successor", "add next_observations, or mark fewer time-outs", "truncations")
        return None
    repeats = np.where(alone, 0, 1 + final)
    observations = tree_map(lambda x: np.repeat(x, repeats, 0), observations)
    shifted = (np.concatenate([dropped[1:], [False]]) | final)[keep]
    rewards = None if rewards is None else rewards[keep]
    return _parts(observations, actions[keep], rewards, terminations[keep], shifted)


def _parts(observations, actions, rewards, terminations, ends) -> dict:
    lengths = np.diff(np.flatnonzero(ends), prepend=-1)
    return dict(observations=observations, actions=actions, rewards=rewards, terminations=terminations,
                truncations=ends & ~terminations, lengths=lengths)  # fmt: skip


def _join(observations: Tree, following: Tree, ends: np.ndarray) -> Tree:
    """[N, ...] observations and successors -> [N + E, ...], each trajectory's last successor in place."""
    rows = np.arange(len(ends)) + np.cumsum(ends) - ends
    other = leaves(following)

    def join(name, x):
        out = np.empty((len(x) + int(ends.sum()), *x.shape[1:]), x.dtype)
        out[rows] = x
        out[rows[ends] + 1] = other[name][ends]
        return out

    return named_map(join, observations)


def _followed(observations: Tree, following: Tree, ends: np.ndarray, report: Report) -> Tree:
    """Observations and successors together; in `ends` a trajectory ends too where the next row is no successor."""
    if not report.failed:
        _same_shapes(observations, following, report)
    if report.failed:
        return observations
    gaps = _gaps(observations, following) & ~ends[:-1]
    if gaps.any():
        row = int(np.argmax(gaps))
        report.warning(f"{int(gaps.sum()):,} rows are followed by another trajectory without a mark; a trajectory "
                       f"ends there, as by time-out", key="next_observations", row=row)  # fmt: skip
        ends[:-1] |= gaps
    return _join(observations, following, ends)


def _same_shapes(observations: Tree, following: Tree, report: Report) -> None:
    a = {k.partition(".")[2]: x.shape for k, x in leaves(observations).items()}
    b = {k.partition(".")[2]: x.shape for k, x in leaves(following).items()}
    if a != b:
        show = lambda s: next(iter(s.values())) if list(s) == [""] else s
        report.error(f"observations are {show(a)} and next_observations {show(b)}; expected the same",
                     "write both alike", "next_observations")  # fmt: skip


def _gaps(observations: Tree, following: Tree) -> np.ndarray:
    """[N - 1] bool, where a row's successor is not the next row's observation (by more than rounding)."""
    gaps = False
    for x, y in zip(leaves(observations).values(), leaves(following).values()):
        x, y = x[1:].reshape(len(x) - 1, -1), y[:-1].reshape(len(y) - 1, -1)
        gaps = gaps | (np.abs(x.astype(np.float32) - y) > 1e-5 * (1 + np.abs(y))).any(1)
    return gaps


def _suspect(terminations, ends, report: Report) -> None:
    """Time limits recorded as terminations: every trajectory terminates, all after equally many steps."""
    lengths = np.diff(np.flatnonzero(ends), prepend=-1)
    if len(lengths) > 2 and lengths[0] > 1 and (lengths == lengths[0]).all() and terminations[ends].all():
        report.warning(
            f"All {len(lengths):,} trajectories terminate after exactly {int(lengths[0]):,} steps; these look like "
            f"time limits, and a termination cuts the bootstrap",
            "record time limits as timeouts (truncations), not as terminations or masks", "terminations",
        )  # fmt: skip

"""understudy's own store: a folder of .npy files that are memory-mapped, and `dataset.json` with their SHA-256.

Any size is opened at once and read as needed. A store is written whole under another name and then renamed, so that a
folder with the right name is always complete.
"""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from understudy.data.dataset import Dataset, leaves
from understudy.errors import DataError
from understudy.files import sync, whole

FORMAT = 1
INDEX = "dataset.json"
ARRAYS = ("actions", "rewards", "terminations", "truncations", "lengths", "action_low", "action_high")


def write(dataset: Dataset, folder: str | os.PathLike) -> pathlib.Path:
    """Write a data set as a store.

    Args:
      dataset: what to write.
      folder: where; must not exist, or be empty.

    Returns:
      the folder.

    Raises:
      DataError: something is there already, or the disk is full or read-only; nothing is left behind then.
    """
    folder = pathlib.Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(f"{folder} exists already; give a new folder, or remove it first.")
    try:
        with whole(folder) as partial:
            partial.mkdir(parents=True)
            columns = leaves(dataset.observations) | {k: getattr(dataset, k) for k in ARRAYS}
            arrays = {k: _save(partial, k, np.asarray(x)) for k, x in columns.items() if x is not None}
            index = {
                "format": FORMAT, "name": dataset.name, "source": dataset.source, "origin_sha256": dataset.sha256,
                "env": dataset.env, "notes": list(dataset.notes), "transitions": dataset.size,
                "episodes": dataset.episodes, "arrays": arrays, "sha256": _identity(arrays),
            }  # fmt: skip
            (partial / INDEX).write_text(json.dumps(index, indent=1))
            sync(partial / INDEX)
    except OSError as error:
        raise cannot_write(folder, error) from None
    return folder


def open(folder: str | os.PathLike) -> Dataset:
    """Open a store; its arrays are memory-mapped and read as needed.

    Raises:
      DataError: not a store, or files that are missing, of another size, or of a newer format.
    """
    folder = pathlib.Path(folder)
    index = _index(folder)
    columns = {name: _open(folder, name, about) for name, about in index["arrays"].items()}
    missing = {"actions", "terminations", "truncations", "lengths", "action_low", "action_high"} - set(columns)
    if missing or not any(k.partition(".")[0] == "observations" for k in columns):
        raise DataError(f"{folder} is no whole store: {sorted(missing) or 'observations'} missing; make it again.")
    lengths = np.array(columns.pop("lengths"))
    dataset = Dataset(
        observations=_tree(columns),
        **{k: columns.get(k) for k in ("actions", "rewards", "terminations", "truncations")},
        lengths=lengths,
        action_low=np.array(columns["action_low"]),
        action_high=np.array(columns["action_high"]),
        name=index["name"],
        source=str(folder),
        sha256=index["sha256"],
        env=index["env"],
        notes=tuple(index["notes"]),
    )
    n, rows = int(lengths.sum()), int(lengths.sum()) + len(lengths)
    expected = {k: n for k in ("actions", "rewards", "terminations", "truncations") if k in columns}
    expected |= {k: rows for k in columns if k.startswith("observations")}
    for key, count in expected.items():
        if len(columns[key]) != count:
            raise DataError(f"{folder} has {len(columns[key]):,} rows of {key}; expected {count:,}: make it again.")
    return dataset


def verify(folder: str | os.PathLike) -> None:
    """Read every file of a store and compare its SHA-256. Raises DataError at the first that differs."""
    folder = pathlib.Path(folder)
    index = _index(folder)
    for name, about in index["arrays"].items():
        x = _open(folder, name, about)
        if _sha256(x) != about["sha256"]:
            raise DataError(f"{folder / about['file']} is damaged (its SHA-256 differs); copy or make the store again.")
    if _identity(index["arrays"]) != index["sha256"]:
        raise DataError(f"{folder / INDEX} is damaged (its SHA-256 differs); copy or make the store again.")


def _index(folder: pathlib.Path) -> dict[str, Any]:
    try:
        index = json.loads((folder / INDEX).read_text())
    except FileNotFoundError:
        raise DataError(f"{folder} is a folder without {INDEX}; give a data file or a store.") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{folder / INDEX} could not be read ({error}); copy or make the store again.") from None
    needed = {"format", "name", "sha256", "env", "notes", "arrays"}
    if not isinstance(index, dict) or not needed <= set(index):
        raise DataError(f"{folder / INDEX} is not the index of a store; copy or make the store again.")
    if index["format"] != FORMAT:
        raise DataError(f"{folder} has format {index['format']}, this version reads {FORMAT}; update understudy.")
    entries = index["arrays"].values() if isinstance(index["arrays"], dict) else [None]
    for about in entries:
        if not (isinstance(about, dict) and {"file", "shape", "dtype", "sha256"} <= set(about)):
            raise DataError(f"{folder / INDEX} is damaged in its list of arrays; copy or make the store again.")
    return index


def _open(folder: pathlib.Path, name: str, about: Mapping[str, Any]) -> np.ndarray:
    file = str(about.get("file"))
    if file != f"{name}.npy" or "/" in file or "\\" in file:  # an index cannot point out of its folder
        raise DataError(f"{folder / INDEX} names the file '{file}' for {name}; copy or make the store again.")
    try:
        x = np.load(folder / file, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise DataError(f"{folder / file} is missing; copy or make the store again.") from None
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{folder / file} is damaged or cut short ({error}); copy or make the store again.") from None
    if list(x.shape) != about["shape"] or x.dtype.str != about["dtype"]:
        raise DataError(f"{folder / file} holds {x.dtype} {list(x.shape)}, the index says {about['dtype']} "
                        f"{about['shape']}; copy or make the store again.")  # fmt: skip
    return x


def _tree(columns: Mapping[str, np.ndarray]) -> Any:
    if "observations" in columns:
        return columns["observations"]
    tree: dict[str, Any] = {}
    for name, x in columns.items():
        first, *path = name.split(".")
        if first == "observations":
            node = tree
            for key in path[:-1]:
                node = node.setdefault(key, {})
            node[path[-1]] = x
    return tree


def _save(folder: pathlib.Path, name: str, x: np.ndarray) -> dict[str, Any]:
    if "/" in name or "\\" in name:
        raise DataError(f"The observation entry '{name}' cannot be a file name; rename it.")
    path = folder / f"{name}.npy"
    with path.open("wb") as file:
        np.lib.format.write_array(file, x, allow_pickle=False)
    sync(path)
    return {"file": path.name, "shape": list(x.shape), "dtype": x.dtype.str, "sha256": _sha256(x)}


def _sha256(x: np.ndarray) -> str:
    """Of the numbers, in pieces, so that a mapped file is never in memory whole."""
    total, step = hashlib.sha256(), max(1, (1 << 24) // max(1, x.itemsize * int(np.prod(x.shape[1:]))))
    for i in range(0, len(x), step):
        total.update(np.ascontiguousarray(x[i : i + step]).reshape(-1).view(np.uint8).data)
    return total.hexdigest()


def _identity(arrays: Mapping[str, Any]) -> str:
    facts = {k: [v["dtype"], v["shape"], v["sha256"]] for k, v in arrays.items()}
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def cannot_write(path: pathlib.Path, error: OSError) -> DataError:
    """The error for a disk that is full or read-only."""
    return DataError(f"{path} could not be written ({error.strerror or error}); free space or give another place. "
                     f"Nothing was left behind.")  # fmt: skip

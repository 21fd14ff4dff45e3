"""Record OGBench data on this machine with the scripted players that the ogbench package ships; nothing is downloaded.

Worker processes, one a core, record whole episodes. An episode depends on the seed and its number alone, so the result
does not depend on how many workers there are.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import pathlib
import queue
import shutil
import signal
import threading
import time
import zipfile
from collections.abc import Callable

import numpy as np

from understudy import progress as shown
from understudy.data import players, relabel, store
from understudy.errors import DataError
from understudy.files import whole

BYTES_PER_ROW = 400  # generous: what a row takes on disk


def make(
    name: str,
    out: str | os.PathLike | None = None,
    episodes: int = 100,
    seed: int = 0,
    *,
    workers: int | None = None,
    steps: int | None = None,
    validation: int = 0,
    progress: bool = True,
) -> pathlib.Path:
    """Record a data set and write it as OGBench's .npz, with rewards and masks where the name is a single task.

    Args:
      name: ogbench/NAME, with NAME as OGBench has it: cube-single-play-singletask-v0, scene-noisy-v0,
        puzzle-4x4-play-singletask-task3-v0, pointmaze-large-stitch-v0 (`players.names()`).
      out: the file (.npz), or a folder for NAME.npz; default ./data, or $UNDERSTUDY_DATA, where it is found by name.
      episodes: how many; published sets have 500 to 5,000.
      seed: episode i is drawn from (seed, i), whatever the other settings are.
      workers: processes; default one a core.
      steps: transitions of an episode; default as published (1,000; 200 for stitch, 2,000 for the giant maze).
      validation: further episodes, written as NAME-val.npz, which some of OGBench's tools want.
      progress: show a bar, and at the end how fast it was.

    Returns:
      the path of the file.

    Raises:
      DataError: an unknown name, a file that exists, no space, or a worker that ended. Nothing half-written stays.
    """
    settings = players.protocol(name.removeprefix("ogbench/"))
    for key, value, low in (("episodes", episodes, 1), ("seed", seed, 0), ("validation", validation, 0),
                            ("workers", workers, 1), ("steps", steps, 1)):  # fmt: skip
        if value is not None and (not isinstance(value, int | np.integer) or value < low):
            raise DataError(f"{key} is {value!r}; give a whole number of at least {low}.")
    if steps is not None:
        settings = dataclasses.replace(settings, rows=int(steps) + 1)
    path = _target(name.removeprefix("ogbench/"), out)
    paths = [path] + ([path.with_name(f"{path.stem}-val.npz")] if validation else [])
    _check_place(paths, (episodes + validation) * settings.rows * BYTES_PER_ROW)
    count = min(workers or _cores(), episodes + validation)
    begin = time.monotonic()
    columns = _record(settings, int(seed), episodes + validation, count, progress)
    seconds = time.monotonic() - begin
    if settings.task_env is not None:
        all_rows = {"file_rows": np.arange(len(columns["terminals"]))}
        columns["rewards"], columns["masks"], _ = relabel.ogbench_rewards(all_rows, columns, settings.task_env)
    split = episodes * settings.rows
    for target, part in zip(paths, (slice(None, split), slice(split, None))):
        write_npz(target, {k: v[part] for k, v in columns.items()})
    if progress:
        rows = len(columns["terminals"])
        shown.say(f"Recorded {episodes + validation:,} episodes ({rows:,} steps) in {seconds:.0f} s with {count} "
                  f"processes, {rows / seconds:,.0f} steps/s: {path}")  # fmt: skip
    return path


def _cores() -> int:
    from understudy.envs.pool import cores

    return cores()


def _target(name: str, out: str | os.PathLike | None) -> pathlib.Path:
    if out is None:
        out = pathlib.Path(os.environ.get("UNDERSTUDY_DATA") or "data").expanduser()
    out = pathlib.Path(out)
    if out.suffix == ".npz" and not out.is_dir():
        return out
    if out.suffix in (".hdf5", ".h5", ".npy", ".zip"):
        raise DataError(f"{out} ends in {out.suffix}; data are written as .npz: give FILE.npz or a folder.")
    return out / f"{name}.npz"


def _check_place(paths: list[pathlib.Path], size: int) -> None:
    """Refuse before minutes of work what would fail after them."""
    for path in paths:
        if path.exists():
            raise DataError(f"{path} exists already; remove it, or give another place (--out).")
    try:
        paths[0].parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(paths[0].parent).free
    except OSError as error:
        raise store.cannot_write(paths[0], error) from None
    if not os.access(paths[0].parent, os.W_OK, effective_ids=os.access in os.supports_effective_ids):
        raise DataError(f"{paths[0].parent} cannot be written to; give another place (--out).")
    if free < size:
        raise DataError(f"{paths[0].parent} has {free / 1e6:,.0f} MB free and the data may take {size / 1e6:,.0f} MB; "
                        f"free space, record fewer episodes, or give another place (--out).")  # fmt: skip


def write_npz(path: pathlib.Path, columns: dict[str, np.ndarray]) -> None:
    """Write a compressed .npz whole or not at all. Raises DataError where the disk is full or read-only."""
    try:
        # The lightest compression: the next level takes three times as long for a few percent.
        with whole(path) as partial, zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            for key, x in columns.items():
                with archive.open(f"{key}.npy", "w", force_zip64=True) as entry:
                    np.lib.format.write_array(entry, np.ascontiguousarray(x), allow_pickle=False)
    except OSError as error:
        raise store.cannot_write(path, error) from None


def _record(settings: players.Protocol, seed: int, episodes: int, count: int, progress: bool) -> dict[str, np.ndarray]:
    """Columns of all episodes in order, recorded by `count` processes."""
    from understudy.envs.process import Child

    # One environment does not gain from threads.
    threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    messages: queue.Queue = queue.Queue()
    done: dict[int, dict[str, np.ndarray]] = {}
    left = iter(range(episodes))
    children: list[Child] = []
    with contextlib.ExitStack() as stack:
        stack.callback(_end, children)
        advance: Callable[[int], None] = lambda n: None
        if progress:
            advance = stack.enter_context(shown.bar("recordings", episodes * settings.rows, "steps")).advance
        for _ in range(count):
            child = Child("understudy.data.players", threads)
            children.append(child)
            threading.Thread(target=_listen, args=(child, messages), daemon=True).start()
            _send(child, b"M", {"protocol": dataclasses.asdict(settings), "seed": seed})
        given: dict[Child, int] = {}
        while len(done) < episodes:
            child, tag, payload = messages.get()
            if tag == b"P":
                advance(int(payload))
                continue
            if tag == b"E":
                raise DataError(f"Recording stopped: {payload.decode(errors='replace')}")
            if tag == b"":
                raise DataError(_ended(child))
            if tag == b"D":
                with np.load(io.BytesIO(payload), allow_pickle=False) as columns:
                    done[given[child]] = dict(columns)
            number = next(left, None)
            if number is not None:
                given[child] = number
                _send(child, b"N", number)
    return {k: np.concatenate([done[i][k] for i in range(episodes)]) for k in done[0]}


def _listen(child, messages: queue.Queue) -> None:
    """Pass a worker's messages on; the last one, with an empty tag, says that it is gone."""
    with contextlib.suppress(EOFError, OSError, ValueError):
        while True:
            messages.put((child, *child.receive()))
    messages.put((child, b"", b""))


def _send(child, tag: bytes, value) -> None:
    with contextlib.suppress(OSError):  # a worker that is gone says so by its last message
        child.send_json(tag, value)


def _ended(child) -> str:
    code = child.process.wait()
    if code == -signal.SIGKILL:
        return "A recording process was killed, as when memory runs out; record with fewer at once (workers=1)."
    how = f"signal {-code}" if code < 0 else f"status {code}"
    return f"A recording process ended early ({how}); its message is above. Try workers=1."


def _end(children: list) -> None:
    """Stop what is still running. Workers that are in the middle of an episode have nothing left to tell."""
    for child in children:
        child.process.kill()
    for child in children:
        with contextlib.suppress(OSError):
            child.process.stdin.close()
        child.process.wait()

"""Checkpoints: one folder each, complete or absent. Arrays in safetensors, the rest in JSON, both under a checksum."""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import re
import shutil

import jax
import jax.numpy as jnp
import numpy as np

from understudy.errors import CheckpointError
from understudy.files import sync, whole
from understudy.progress import say
from understudy.run.folder import FORMAT, disk_error

KEEP = 2


def flatten(tree) -> dict[str, np.ndarray]:
    """{path: array} of a tree, e.g. 'state.critic.q.params...'."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}


def restore(like, arrays: dict[str, np.ndarray], what: str = "checkpoint"):
    """Put arrays back into the structure `like`. Raises CheckpointError where one is missing or of another shape."""

    def one(path, leaf):
        name = jax.tree_util.keystr(path)
        if name not in arrays:
            raise CheckpointError(f"The {what} has no {name}; it was written with other settings or another version.")
        if arrays[name].shape != np.shape(leaf):
            raise CheckpointError(
                f"{name} in the {what} has shape {arrays[name].shape}, these settings need {np.shape(leaf)}; "
                f"resume with the settings that wrote it."
            )
        return jnp.asarray(arrays[name], jnp.asarray(leaf).dtype)

    return jax.tree_util.tree_map_with_path(one, like)


# Where what follows another part starts when there is nothing to carry over: as a copy of that.
FOLLOWS = (("['state'].target", "['state'].actor.params"), ("['state'].critic.target", "['state'].critic.q.params"),
           ("['state'].base", "['state'].actor.params"), ("['state'].guide", "['state']"),
           ("['state'].slow", "['state']"))  # fmt: skip

# What is many copies of another part, where there is something to carry over.
COPIED = (("['state'].clones.params", "['state'].actor.params"), ("['state'].accepted", "['state'].actor.params"))

COUNTED = (".step", ".count", ".mean", ".variance")  # of a state: updates, and moments of what was seen
LEARNED = ("params", ".target", ".base", ".accepted")  # where parameters lie


def carry_over(like, arrays: dict[str, np.ndarray], *, acted=(), updates: int = 0) -> tuple:
    """Put those networks into `like` that it has under the same names and shapes, all arrays of a network or none, the
    number of updates, and no optimiser states: what another algorithm shares. What an algorithm learns around another
    one has the name that it would have alone, and a policy may become the base of one that acts through it.

    Args:
      acted: (place, place of what learns) of networks that acted in the place of those, and will no more, outermost
        first: they are what goes on.
      updates: of the run so far, where the arrays do not count them.

    Returns:
      the tree, and the names of networks that go on and of those that start afresh."""
    alone = lambda name: re.sub(r"^(\['state'\])(\.inner)+", r"\1", name)
    through = lambda name: re.sub(r"^(\['state'\]\.(actor\.params|target))", r"\1['base']", name)
    leaves, structure = jax.tree_util.tree_flatten_with_path(like)
    names = [alone(jax.tree_util.keystr(path)) for path, _ in leaves]
    mine, arrays = dict(zip(names, (leaf for _, leaf in leaves))), {alone(k): v for k, v in arrays.items()}
    for place, learning in ((f"['state']{x}", f"['state']{y}") for x, y in acted):
        arrays |= {learning + k.removeprefix(place): v for k, v in arrays.items() if k.startswith(place)}
    arrays = {through(k) if k not in mine and through(k) in mine else k: v for k, v in arrays.items()}
    network = lambda name: name[: name.rfind("['params']")] if "['params']" in name else name
    fits = lambda name: name in arrays and name in mine and arrays[name].shape == np.shape(mine[name])
    broken = {network(n) for n in {*mine, *arrays} if not fits(n)}
    learned = lambda name: ".opt" not in name and (any(x in name for x in LEARNED) or name.endswith(COUNTED))
    kept = {n: arrays[n] for n in mine if fits(n) and network(n) not in broken and learned(n)}
    followers = tuple(target for target, _ in FOLLOWS)
    networks = {network(n) for n in mine if any(x in n for x in LEARNED) and ".opt" not in n}
    networks = {n for n in networks if not n.startswith(followers)}
    going = networks & {network(n) for n in kept}
    uncounted = (n for n in mine if n.endswith(".step") and n not in kept and not n.startswith(followers))
    kept |= {n: np.full(np.shape(mine[n]), updates) for n in uncounted}
    for target, followed in FOLLOWS:
        for name in mine:
            source = followed + name.removeprefix(target)
            if name.startswith(target) and name not in kept and source in mine:
                kept[name] = np.array(kept.get(source, mine[source]))
    for target, copied in COPIED:
        for name in mine:
            source = copied + name.removeprefix(target)
            if name.startswith(target) and name not in kept and source in kept:
                kept[name] = np.broadcast_to(kept[source][:, None], np.shape(mine[name]))
    new = [jnp.asarray(kept[n], jnp.asarray(x).dtype) if n in kept else x for n, x in mine.items()]
    return structure.unflatten(new), _plainly(going), _plainly(networks - going)


def _plainly(networks) -> list[str]:
    """['critic.q', ...] of networks "['state'].critic.q.params"."""
    dotted = (re.sub(r"\['(\w+)'\]", r".\1", name).replace(".params", "") for name in networks)
    return sorted({name.removeprefix(".state.") for name in dotted})


def write_arrays(path: pathlib.Path, arrays: dict[str, np.ndarray]) -> str:
    """Write a safetensors file, flushed to disk; return its SHA-256."""
    from safetensors.numpy import save

    blob = save({k: np.ascontiguousarray(v).reshape(np.shape(v)) for k, v in arrays.items()})
    path.write_bytes(blob)
    sync(path)
    return hashlib.sha256(blob).hexdigest()


def read_arrays(path: pathlib.Path, sha256: str | None) -> dict[str, np.ndarray]:
    """Read a safetensors file. Raises CheckpointError where it is damaged or not the one that was checksummed."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        blob = path.read_bytes()
        if sha256 is not None and hashlib.sha256(blob).hexdigest() != sha256:
            raise CheckpointError(f"{path} does not match its checksum: it is truncated or damaged.")
        return load(blob)
    except FileNotFoundError:
        raise CheckpointError(f"{path} is missing.") from None
    except SafetensorError as error:
        raise CheckpointError(f"{path} is not a readable safetensors file ({error}).") from None


def save(folder: pathlib.Path, name: str, arrays: dict[str, np.ndarray], meta: dict) -> pathlib.Path:
    """Write checkpoint NUMBER-`name`, then drop all but the last two. A full disk leaves the earlier ones as they were.

    The number counts what was ever written: a run that goes back, because it was extended or because its newest
    checkpoint is damaged, still ends with its newest state last."""
    home, before = folder / "checkpoints", names(folder)
    name = f"{_number(before[-1]) + 1 if before else 0:06d}-{name}"
    try:
        home.mkdir(exist_ok=True)
        for stale in home.glob(".*"):
            shutil.rmtree(stale, ignore_errors=True)
        with whole(home / name) as partial:
            partial.mkdir()
            digest = write_arrays(partial / "arrays.safetensors", arrays)
            body = json.dumps(meta | {"format": FORMAT, "arrays_sha256": digest}, sort_keys=True)
            sealed = json.dumps({"sha256": hashlib.sha256(body.encode()).hexdigest(), "body": body})
            (partial / "checkpoint.json").write_text(sealed)
            sync(partial / "checkpoint.json")
    except OSError as error:
        raise disk_error(folder / "checkpoints", error) from error
    for old in names(folder)[:-KEEP]:
        shutil.rmtree(home / old, ignore_errors=True)
    return home / name


def names(folder: pathlib.Path) -> list[str]:
    """Checkpoints of a run, oldest first."""
    home = pathlib.Path(folder) / "checkpoints"
    found = [p.name for p in home.iterdir() if p.is_dir() and _number(p.name) >= 0] if home.exists() else []
    return sorted(found, key=lambda name: (_number(name), name))


def _number(name: str) -> int:
    """How many checkpoints were written before this one; -1 for a folder that is none."""
    head = name.split("-")[0]
    return int(head) if head.isdecimal() else -1


class OtherFormat(CheckpointError):
    """A whole checkpoint of another version: not to be passed over."""


def load(path: pathlib.Path) -> tuple[dict[str, np.ndarray], dict]:
    """Read one checkpoint: arrays and meta. Raises CheckpointError where it is damaged or of another format."""
    try:
        sealed = json.loads((path / "checkpoint.json").read_text())
        body = sealed["body"]
        if hashlib.sha256(body.encode()).hexdigest() != sealed["sha256"]:
            raise ValueError("checksum")
        meta = json.loads(body)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, ValueError, KeyError, TypeError, AttributeError):
        raise CheckpointError(f"{path} is truncated or damaged (checkpoint.json).") from None
    if meta["format"] != FORMAT:
        raise OtherFormat(
            f"{path} was written in checkpoint format {meta['format']}, this is format {FORMAT}; "
            f"use the understudy release that wrote it."
        )
    return read_arrays(path / "arrays.safetensors", meta["arrays_sha256"]), meta


def latest(folder: pathlib.Path, *, mend: bool = False) -> tuple[dict[str, np.ndarray], dict] | None:
    """The newest whole checkpoint; a damaged one is passed over with a warning. None where there is none.

    `mend`: put damaged ones aside as damaged-NAME, so that they are not counted among the last two."""
    for name in reversed(names(folder)):
        try:
            found = load(pathlib.Path(folder) / "checkpoints" / name)
        except OtherFormat:
            raise
        except CheckpointError as error:
            say(f"warning: {error} Going back to the checkpoint before it, if there is one.")
            if mend:
                home = pathlib.Path(folder) / "checkpoints"
                os.rename(home / name, home / f"damaged-{name}")
            continue
        return found
    return None

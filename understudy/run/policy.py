"""The policy to deploy: parameters of every seed without what only training needs, and a JSON that describes them."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import re
from typing import Any

import jax
import numpy as np

from understudy.core import Net
from understudy.errors import CheckpointError, DataError, SettingsError
from understudy.files import whole
from understudy.run import checkpoint, external, programs
from understudy.run.cache import keep_compiled
from understudy.run.folder import FORMAT, disk_error, write_json
from understudy.wrappers import shaped

NEEDED = {"algorithm", "preset", "overrides", "seeds", "action_size", "observations", "sha256"}  # of policy.json
COPIED = ("format", "understudy", "algorithm", "object", "preset", "overrides", "settings", "env")  # of the manifest


def export_policy(path: pathlib.Path, loop, manifest: dict) -> None:
    """Write policy.safetensors (parameters of every seed, no optimiser state) and policy.json: the policy as it stands,
    with the settings of the phase that the run is in or ended with."""
    state, like, counters = loop.state, loop.example, loop.counters
    phases = loop.plan.phases
    own = dict(phases[min(counters.phase, len(phases) - 1)].settings)
    manifest = manifest | {"overrides": manifest["overrides"] | own, "settings": manifest["settings"] | own}
    file = path / "policy.safetensors"
    try:
        arrays = checkpoint.flatten({"state": bare(state)}) | external.arrays_of(loop.algo)
        with whole(file) as partial:
            digest = checkpoint.write_arrays(partial, arrays)
    except OSError as error:
        raise disk_error(file, error) from error
    shapes = {jax.tree_util.keystr(p): [list(np.shape(x))[1:], str(np.asarray(x).dtype)]
              for p, x in jax.tree_util.tree_flatten_with_path(like["observations"])[0]}  # fmt: skip
    write_json(
        path / "policy.json",
        {k: manifest[k] for k in COPIED}
        | {"updates": counters.updates, "env_steps": counters.env_steps}
        | {"seeds": manifest["seeds"], "action_size": int(like["actions"].shape[-1]), "observations": shapes,
           "actions": "in [-1, 1], mapped affinely to the environment's own range", "sha256": digest},
    )  # fmt: skip


def load_policy(path: str | pathlib.Path, algorithm: Any = None) -> Acting:
    """The policy of a run folder, ready to act. `algorithm`: the object, where the run was trained with one."""
    from understudy import registry

    keep_compiled()
    path = pathlib.Path(path)
    try:
        about = json.loads((path / "policy.json").read_text())
        version = about["format"]
        if version == FORMAT and NEEDED - about.keys():
            raise KeyError
    except FileNotFoundError:
        raise CheckpointError(f"{path} has no policy yet; finish the run: understudy resume {path}") from None
    except (ValueError, KeyError, TypeError):
        raise CheckpointError(
            f"{path / 'policy.json'} is damaged; write it again with: understudy resume {path}"
        ) from None
    if version != FORMAT:
        raise CheckpointError(
            f"{path} holds a policy of format {version}, this is format {FORMAT}; "
            f"use the understudy release that wrote it."
        )
    if algorithm is not None:
        algo = registry.adjust(algorithm, about["overrides"])
    elif about["algorithm"] is None:
        raise CheckpointError(
            f"The policy in {path} belongs to an algorithm object, which only Python has: "
            f"understudy.load({str(path)!r}, algorithm=THE_OBJECT)."
        )
    else:
        algo = registry.make(about["algorithm"], about["action_size"], about["overrides"], about["preset"])
    arrays = checkpoint.read_arrays(path / "policy.safetensors", about["sha256"])
    batch = {"observations": jax.tree.map(lambda x: x[None], _zeros(about["observations"])),
             "actions": np.zeros((1, about["action_size"]), np.float32)}  # fmt: skip
    batch |= {k: np.zeros(1, np.float32) for k in algo.requires - batch.keys() - {"next_observations", "next_actions"}}
    batch |= {"next_observations": batch["observations"], "next_actions": batch["actions"]}
    batch = shaped(algo, batch)
    like = jax.eval_shape(lambda k: algo.init(k, batch), jax.random.key(0))
    seeds = len(about["seeds"])
    like = jax.tree.map(lambda x: np.broadcast_to(np.zeros((), x.dtype), (seeds, *x.shape)), bare(like))
    external.restore(algo, arrays)
    return Acting(algo, checkpoint.restore({"state": like}, arrays, "policy")["state"], about)


def _zeros(shapes: dict[str, list]):
    """One observation of zeros: an array, or the nested dictionary whose leaves' paths are "['a']['b']"."""
    leaf = lambda about: np.zeros(about[0], about[1])
    if list(shapes) == [""]:
        return leaf(shapes[""])
    tree: dict = {}
    for path, about in shapes.items():
        *outer, last = re.findall(r"\['(.*?)'\]", path)
        place = tree
        for name in outer:
            place = place.setdefault(name, {})
        place[last] = leaf(about)
    return tree


class Acting:
    """A loaded policy: call it with observations. Checks their shape; knows nothing of training. A policy that samples
    draws anew in each call, the same in each object, or, with a `key` given, what belongs to that."""

    def __init__(self, algo, state, about: dict):
        self.algo, self.state, self.about = algo, state, about
        self.like, self.calls = _zeros(about["observations"]), 0

    def __call__(self, observations, *, seed: int = 0, key: int | None = None, greedy: bool = True) -> np.ndarray:
        return self.act(observations, seed=seed, key=key, greedy=greedy)[0]

    def act(self, observations, carry=None, *, seed: int = 0, key: int | None = None, greedy: bool = True) -> tuple:
        """Actions, and the carry for the next call: what a policy that plays chunks of actions or sees a history
        remembers between steps. None begins an episode."""
        wanted = jax.tree.map(lambda x: ("B", *x.shape), self.like)
        try:
            observations = jax.tree.map(lambda like, x: np.asarray(x, like.dtype), self.like, observations)
        except (ValueError, TypeError) as error:
            raise DataError(f"The policy takes observations {wanted}; got {type(observations).__name__}.") from error
        pairs = list(zip(jax.tree.leaves(self.like), jax.tree.leaves(observations)))
        single = all(x.shape == like.shape for like, x in pairs)
        if single:
            observations = jax.tree.map(lambda x: x[None], observations)
        elif any(x.shape[1:] != like.shape for like, x in pairs) or len({x.shape[0] for _, x in pairs}) > 1:
            given = jax.tree.map(np.shape, observations)
            raise DataError(f"The policy takes observations {wanted}; got {given}.")
        if any(x.dtype.kind == "f" and not np.isfinite(x).all() for x in jax.tree.leaves(observations)):
            raise DataError("The observations hold NaN or infinity, to which no action belongs; give finite numbers.")
        if not 0 <= seed < len(self.about["seeds"]):
            raise SettingsError(f"The run has {len(self.about['seeds'])} seed(s); got seed {seed}, counted from 0.")
        state = jax.tree.map(lambda x: x[seed : seed + 1], self.state)
        lanes = jax.tree.map(lambda x: x[None], observations)
        player = external.programs_of(self.algo).Player(self.algo, state, jax.random.key(key or 0)[None], greedy)
        player.carry = carry
        begun = np.zeros((1, len(jax.tree.leaves(observations)[0])), bool)
        actions = player(lanes, self.calls if key is None else 0, begun)[0]
        self.calls += key is None
        return actions[0] if single else actions, player.carry

    def player(self, only: int | None = None) -> programs.Player:
        """Every seed (or one), acting greedily as evaluation wants it."""
        keys = programs.seed_keys(self.about["seeds"], programs.EVALUATE)
        state = self.state
        if only is not None:
            keys, state = keys[only : only + 1], jax.tree.map(lambda x: x[only : only + 1], state)
        return external.programs_of(self.algo).Player(self.algo, state, keys)


def bare(state):
    """The state without what only training needs: optimiser states and scratch fields."""
    if isinstance(state, Net):
        return Net(params=state.params, opt=())
    if dataclasses.is_dataclass(state):
        part = lambda f: () if f.metadata.get("scratch") else bare(getattr(state, f.name))
        return dataclasses.replace(state, **{f.name: part(f) for f in dataclasses.fields(state)})
    if isinstance(state, dict):
        return {k: bare(v) for k, v in state.items()}
    return state

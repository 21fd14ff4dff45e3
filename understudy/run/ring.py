"""The replay of a run: one ring in which every seed writes its own episodes, kept across stops and extensions."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from understudy.core import Batch
from understudy.data.replay import Buffer
from understudy.run import checkpoint, programs


def empty(example: Batch, capacity: int, lanes: int, seeds: int) -> Buffer:
    """A ring for `capacity` transitions of each seed, leaves [K, C, ...], shaped like `example` (leaves [1, ...])."""
    one = Buffer.empty(example, max(capacity, lanes), lanes)
    data = jax.tree.map(lambda x: jnp.zeros((seeds, *x.shape), x.dtype), one.data)
    return Buffer(data=data, size=one.size, head=one.head, lanes=lanes)


def with_returns(ring: Buffer, seed: int, lane: int, last_step: int, values: np.ndarray) -> Buffer:
    """The Monte-Carlo returns of an episode whose last transition was stored at environment step `last_step`."""
    slots = ring.capacity // ring.lanes
    slot = last_step // ring.lanes - np.arange(len(values))[::-1]
    slot, values = slot[-slots:], values[-slots:]
    room = 1 << (len(values) - 1).bit_length()  # few lengths, few compilations
    positions = np.full(room, ring.capacity, np.int32)
    positions[: len(values)] = (slot % slots) * ring.lanes + lane
    padded = np.zeros(room, np.float32)
    padded[: len(values)] = values
    return programs.fill(ring, seed, positions, padded, "mc_returns")


def saved(ring: Buffer) -> tuple[dict[str, np.ndarray], dict]:
    """What a checkpoint keeps of it: arrays, without room that was never written, and meta."""
    size = int(ring.size)
    held = jax.tree.map(lambda x: np.asarray(x[:, :size]), ring.data)
    return checkpoint.flatten({"replay": held}), {"size": size, "head": int(ring.head), "capacity": ring.capacity}


def refilled(ring: Buffer, arrays: dict[str, np.ndarray], size: int, head: int, capacity: int) -> Buffer:
    """What was `saved`, in an empty ring that may have grown since."""
    if ring.capacity != capacity and size == capacity and head:  # it had wrapped: unroll, oldest first
        order = np.roll(np.arange(size), -head)
    else:
        order = np.arange(size)
    keep = order[-ring.capacity :]

    def one(path, x):
        name = jax.tree_util.keystr(path)
        if name not in arrays and name.endswith("['mc_returns']"):  # an earlier algorithm had no use for them
            return jnp.full_like(x, -jnp.inf)
        return jnp.asarray(np.asarray(x)).at[:, : len(keep)].set(arrays[name][:, keep])

    data = jax.tree_util.tree_map_with_path(one, {"replay": ring.data})["replay"]
    head = head if ring.capacity == capacity else len(keep) % ring.capacity
    return Buffer(data=data, size=jnp.int32(len(keep)), head=jnp.int32(head), lanes=ring.lanes)

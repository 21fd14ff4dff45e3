"""Samples of a policy kept beside the transitions, so that updates need not draw them: the columns that an extraction
with `cached` takes its proposals from. They are of the policy as it was when they were drawn, anew after every so many
updates of a phase without live steps; a live phase samples for each batch."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from understudy.core import batch_size
from understudy.data.replay import Buffer, HostBuffer


def lasting(algo) -> int:
    """Updates that stored proposals are used for, 0 where the algorithm takes none, or asks a policy outside."""
    outside = getattr(algo, "external", None) is not None
    return 0 if outside or "candidates" not in algo.requires else algo.extraction.refill


def proposer_of(algo, state) -> Any:
    """The parameters that an update samples with."""
    return state.target if algo.target_policy else state.actor.params


@functools.partial(jax.jit, static_argnames=("n", "rows"))
def sample(policy, params, observations, key, n: int, rows: int = 4096, start=0):
    """n samples at each of C observations, [C, ...] -> [C, n, A], `rows` of them at a time, which changes no number:
    row i draws from fold_in(key, start + i)."""

    def one(row):
        observation, i = row
        alone = jax.tree.map(lambda x: x[None], observation)
        keys = jax.random.split(jax.random.fold_in(key, i), n)
        return jax.vmap(lambda k: policy.sample(params, alone, k)[0])(keys)

    return jax.lax.map(one, (observations, start + jnp.arange(batch_size(observations))), batch_size=rows)


def columns(algo, params, source: Buffer | HostBuffer, key, rows: int = 4096) -> dict[str, Any]:
    """candidates and next_candidates [C, k, A] of one seed's policy at every transition of a source, on its side.

    Args:
      algo: an `ActorCritic` whose extraction has `samples`, k. params: `proposer_of` one seed's state.
      source: leaves [C, ...], of one seed. rows: observations in one piece of the work, for its memory.
    """
    draw = functools.partial(sample, algo.policy, params, n=algo.extraction.samples, rows=rows)

    def column(which: str, key):
        if isinstance(source, Buffer):
            return draw(source.data[which], key)
        pieces = [np.arange(i, min(i + rows, source.size)) for i in range(0, source.size, rows)]
        return np.concatenate([np.asarray(draw(source.take(which, at), key, start=int(at[0]))) for at in pieces])

    names, keys = ("observations", "next_observations"), jax.random.split(key)
    return {name.replace("observations", "candidates"): column(name, k) for name, k in zip(names, keys)}


def of_seeds(algo, params, source: Buffer | HostBuffer, own: bool, keys) -> dict[str, Any]:
    """`columns` of every seed, [K, C, k, A]. `own`: each seed has its own data, leaves [K, C, ...]."""
    every = []
    for i, key in enumerate(keys):
        mine = Buffer(data=jax.tree.map(lambda x: x[i], source.data), size=source.size, head=source.head,  # noqa: B023
                      lanes=source.lanes) if own else source  # fmt: skip
        every.append(columns(algo, jax.tree.map(lambda x: x[i], params), mine, key))  # noqa: B023
    stack = jnp.stack if isinstance(source, Buffer) else np.stack
    return {name: stack([found[name] for found in every]) for name in every[0]}

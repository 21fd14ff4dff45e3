"""The compiled programs of a run: everything hot is one of these calls.

State has a leading seed axis K; with one seed it is squeezed away inside the program, else `vmap` runs all seeds in
step. Update i of seed k uses fold_in(stream key of k, i), so that (seed, step) restores all randomness; and the number
of updates in a call is traced, so that no bit depends on where calls begin and end.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

from understudy.data.replay import PER_SEED, Buffer

NEVER = jnp.iinfo(jnp.int32).max
INIT, UPDATE, ACT, EVALUATE, PROPOSE = range(5)  # streams of randomness


def seed_keys(seeds, stream: int) -> jax.Array:
    """One key per seed, [K], for one stream."""
    return jnp.stack([jax.random.fold_in(jax.random.key(seed), stream) for seed in seeds])


def over_seeds(f, axes, outs=0):
    """vmap `f` over the seed axis; with a single seed drop the axis instead, which costs nothing at run time.

    `axes` has 0, None or a pytree of those per argument, as `vmap` takes them."""

    def run(*args):
        k = max(x.shape[0] for a, t in zip(axes, args) if a == 0 for x in jax.tree.leaves(t))
        if k > 1:
            return jax.vmap(f, in_axes=axes, out_axes=outs)(*args)
        is_none = lambda x: x is None
        squeeze = lambda a, t: jax.tree.map(lambda x: x[0], t) if a == 0 else t
        expand = lambda a, t: jax.tree.map(lambda x: x[None], t) if a == 0 else t

        def each(go, spec, tree):
            if spec is None or spec == 0:
                return go(spec, tree)
            return jax.tree.map(go, spec, tree, is_leaf=is_none)

        out = f(*(each(squeeze, a, t) for a, t in zip(axes, args)))
        return each(expand, outs, out) if outs == 0 else tuple(each(expand, o, x) for o, x in zip(outs, out))

    return run


def replay_axes(replay: Buffer) -> Buffer:
    """Seeds have their own data and share size and head, so that writing stays one contiguous copy."""
    return Buffer(data=0, size=None, head=None, lanes=replay.lanes)


def source_axes(sources: dict) -> dict:
    """Seeds share the data but for what is kept beside them."""
    own = lambda source: {name: 0 if name in PER_SEED else None for name in source.data}
    return {n: Buffer(data=own(s), size=None, head=None, lanes=s.lanes) for n, s in sources.items()}


@jax.jit
def initialise(algo, keys, batch):
    """Fresh states [K, ...] of every seed."""
    return over_seeds(lambda k: algo.init(k, batch), (0,))(keys)


@functools.partial(jax.jit, static_argnames=("names",), donate_argnums=(1,))
def chunk(algo, state, sources, replay, sampler, keys, start, stop, given, names, marks=None):
    """Updates `start` to `stop` of every seed. Returns the state, the sums of the metrics [K, M] and, for each, the
    first update at which it was not finite [K, M] (NEVER if it was). `given`: host batches [n, K, B, ...] or {};
    `marks`: of the sampler, with a leading seed axis."""
    one = (0, None, source_axes(sources), replay_axes(replay) if replay is not None else None, 0, 0, 0)

    def update(state, i, sources, replay, key, given, marks):
        key_sample, key_update = jax.random.split(jax.random.fold_in(key, i))
        every = sources if replay is None else sources | {"replay": replay}
        batch = sampler(every, key_sample, given, marks)
        state, metrics = algo.update(state, batch, key_update)
        return state, jnp.stack([jnp.asarray(metrics[n], jnp.float32) for n in names])

    def body(i, carry):
        state, total, bad = carry
        now = jax.tree.map(lambda x: x[i - start], given)
        state, values = over_seeds(update, one, (0, 0))(state, i, sources, replay, keys, now, marks)
        return state, total + values, jnp.minimum(bad, jnp.where(jnp.isfinite(values), NEVER, i))

    zeros = jnp.zeros((len(keys), len(names)))
    return jax.lax.fori_loop(start, stop, body, (state, zeros, jnp.full(zeros.shape, NEVER)))


@functools.partial(jax.jit, static_argnames=("names", "updates"), donate_argnums=(1, 3))
def interact(
    algo, state, sources, replay, sampler, slot, observations, carry, keys, act_keys, start, step, given, *, names,
    updates,
):  # fmt: skip
    """One step of live learning, after the environments have stepped: store the transitions, `updates` updates, choose
    the next actions. `slot`, `observations` and `carry` [K, L, ...]; lanes whose episode ended begin with an empty
    carry. Returns state, replay, actions [K, L, A], carry and the metrics [K, M], averaged over the updates (a NaN
    stays a NaN). `given`: host batches [updates, K, B, ...] or {}."""
    ring = replay_axes(replay)

    def one(state, replay, slot, observations, carry, key, act_key, given):
        replay = replay.add(slot)
        if hasattr(algo, "observe"):
            state = algo.observe(state, slot, carry)

        def update(i, learned):
            state, total = learned
            key_sample, key_update = jax.random.split(jax.random.fold_in(key, start + i))
            now = jax.tree.map(lambda x: x[i], given)
            batch = sampler(sources | {"replay": replay}, key_sample, now)
            state, metrics = algo.update(state, batch, key_update)
            return state, total + jnp.stack([jnp.asarray(metrics[n], jnp.float32) for n in names])

        learned = state, jnp.zeros(len(names))
        if updates == 1:
            learned = update(0, learned)
        elif updates:
            learned = jax.lax.fori_loop(0, updates, update, learned)
        state, total = learned
        carry = emptied(carry, slot["ends"])
        actions, carry = algo.act(state, observations, jax.random.fold_in(act_key, step), carry)
        return state, replay, actions, carry, total / max(updates, 1)

    given = jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), given)  # seeds first
    run = over_seeds(one, (0, ring, 0, 0, 0, 0, 0, 0), (0, ring, 0, 0, 0))
    return run(state, replay, slot, observations, carry, keys, act_keys, given)


def emptied(carry, begun):
    """The carry with zeros, a fresh start, in the lanes [L] that are marked."""
    zero = lambda x: jnp.where(begun.reshape(-1, *[1] * (x.ndim - 1)), jnp.zeros_like(x), x)
    return jax.tree.map(zero, carry)


@functools.partial(jax.jit, static_argnames=("greedy",))
def act(algo, state, observations, carry, begun, keys, step, greedy):
    """Actions [K, L, A] and the next carry for observations [K, L, ...] at one step of a stream; lanes marked in
    `begun` [K, L] begin with an empty carry."""

    def one(state, observations, carry, begun, key):
        return algo.act(state, observations, jax.random.fold_in(key, step), emptied(carry, begun), greedy=greedy)

    return over_seeds(one, (0, 0, 0, 0, 0), (0, 0))(state, observations, carry, begun, keys)


@jax.jit
def empty_carry(algo, state, observations, keys):
    """What `act` takes before its first step, for observations [K, L, ...]: zeros, or () where nothing is carried."""
    one = lambda state, observations, key: algo.act(state, observations, key)[1]
    shapes = jax.eval_shape(over_seeds(one, (0, 0, 0)), state, observations, keys)
    return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)


class Player:
    """Every seed's policy, playing step after step: keeps the carry between the calls.

    `player(observations [K, L, ...], step, begun [K, L]) -> actions [K, L, A]`; `begun` marks lanes whose episode
    begins with these observations."""

    def __init__(self, algo, state, keys, greedy: bool = True):
        self.algo, self.state, self.keys, self.greedy, self.carry = algo, state, keys, greedy, None

    def __call__(self, observations, step: int, begun) -> np.ndarray:
        if self.carry is None:
            self.carry = empty_carry(self.algo, self.state, observations, self.keys)
        actions, self.carry = act(self.algo, self.state, observations, self.carry, begun, self.keys, step, self.greedy)
        return np.asarray(actions)


@functools.partial(jax.jit, static_argnames=("low", "high"))
def random_actions(keys, step, like, low=-1.0, high=1.0):
    """Uniform actions shaped like `like` [K, L, A]."""
    one = lambda k, x: jax.random.uniform(jax.random.fold_in(k, step), x.shape, minval=low, maxval=high)
    return over_seeds(one, (0, 0))(keys, like)


@functools.partial(jax.jit, donate_argnums=(0,), static_argnames=("name",))
def fill(replay: Buffer, seed, positions, values, name):
    """Write `values` [n] into one column of one seed's ring; positions past the end are left out."""
    column = replay.data[name].at[seed, positions].set(values, mode="drop")
    return Buffer(data=replay.data | {name: column}, size=replay.size, head=replay.head, lanes=replay.lanes)


@jax.jit
def draw_positions(sampler, sizes, keys, start, count, marks):
    """Where updates start + count of every seed read a host source: source -> [n, K, B]; `count` is arange(n)."""

    def one(key, marks, i):
        return sampler.positions(sizes, jax.random.split(jax.random.fold_in(key, i))[0], marks)

    return jax.vmap(lambda i: jax.vmap(lambda k, m: one(k, m, i))(keys, marks))(start + count)

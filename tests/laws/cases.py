"""Every registered algorithm, small: the laws run over all of them, so a new one is tested by being registered."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from understudy import registry
from understudy.wrappers import shaped

B, O, A = 16, 5, 3
SMALL = {"hidden": (32, 32), "bonus_hidden": (32,), "samples": 3, "keep": 2, "steps": 3, "chunk": 2,
         "width": 16, "heads": 2, "layers": 1, "bins": 5,  # these four of transformers and tokens
         "critic_steps": 3}  # fmt: skip


def recipes() -> dict:
    """name -> recipe, of every registered algorithm."""
    return {name: registry.load("algorithm", name) for name in registry.ALGORITHMS}


def shrink(part):
    """The same structure with small networks."""
    if not dataclasses.is_dataclass(part):
        return part
    change = {}
    for field in dataclasses.fields(part):
        value = getattr(part, field.name)
        if field.name in SMALL:
            small, low = SMALL[field.name], field.metadata.get("low")
            change[field.name] = small if low is None or not isinstance(small, int) else max(small, low)
        elif dataclasses.is_dataclass(value):
            change[field.name] = shrink(value)
    return dataclasses.replace(part, **change)


def make(name: str):
    """That algorithm with small networks, for A-dimensional actions."""
    return shrink(recipes()[name](A))


def make_batch(seed: int = 0, size: int = B) -> dict:
    """A batch with every key that an algorithm may ask for."""
    rng = np.random.default_rng(seed)
    normal = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)
    action = lambda: jnp.asarray(rng.uniform(-1, 1, size=(size, A)), jnp.float32)
    bits = lambda: jnp.asarray(rng.uniform(size=size) < 0.8, jnp.float32)
    return {
        "observations": normal(size, O), "actions": action(), "rewards": normal(size), "masks": bits(),
        "next_observations": normal(size, O), "next_actions": action(), "next_valids": bits(),
        "mc_returns": normal(size).at[0].set(-jnp.inf),
        "candidates": jnp.stack([action() for _ in range(3)], 1),
        "next_candidates": jnp.stack([action() for _ in range(3)], 1),
    }  # fmt: skip


def needed(algorithm, batch: dict) -> dict:
    """Only the keys that the algorithm asks for, in the shapes that its sampler gives."""
    return shaped(algorithm, {k: v for k, v in batch.items() if k in algorithm.requires})


@jax.jit
def init(algorithm, key, batch):
    """One program, since one by one its operations take longer to compile."""
    return algorithm.init(key, batch)


@jax.jit
def update(algorithm, state, batch, key):
    """One update: the one program of each algorithm that the laws share."""
    return algorithm.update(state, batch, key)


@functools.partial(jax.jit, static_argnames="greedy")
def act(algorithm, state, observations, key, carry=(), greedy=False):
    """What a loop plays, one step."""
    return algorithm.act(state, observations, key, carry, greedy=greedy)


@functools.partial(jax.jit, static_argnames="n")
def chunk(algorithm, state, batch, key, start, n: int = 10):
    """n updates in one scan; update i uses fold_in(key, i), as a run does."""
    body = lambda state, i: algorithm.update(state, batch, jax.random.fold_in(key, i))
    return jax.lax.scan(body, state, start + jnp.arange(n))


@dataclasses.dataclass(frozen=True)
class Case:
    name: str
    algorithm: object
    batch: dict
    state: object
    key: jax.Array = dataclasses.field(default_factory=lambda: jax.random.key(1))
    update = staticmethod(update)
    chunk = staticmethod(chunk)


@functools.cache
def case_of(name: str) -> Case:
    algorithm = make(name)
    batch = needed(algorithm, make_batch())
    return Case(name, algorithm, batch, init(algorithm, jax.random.key(0), batch))

"""Algorithms around another algorithm: several actions at a time, several observations at a time.

A wrapper holds the algorithm that it is around in a `through` field. These two change what that one takes for an action
or an observation, and keep in the carry of `act` what the next step needs. Zeros are a fresh start, so a loop resets a
lane by zeroing its rows.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from understudy.algorithm import Algorithm
from understudy.core import Batch, batch_size, pytree, static, through
from understudy.errors import SettingsError


def settled(part: Any, name: str, value: Any, unsettled: Any = None) -> Any:
    """An algorithm, or part of one, with `value` in each field `name` of it and of what it holds; where `unsettled` is
    given, only in those that have that value."""
    if not dataclasses.is_dataclass(part):
        return part
    change = {}
    for field in dataclasses.fields(part):
        held = getattr(part, field.name)
        if field.name == name and (unsettled is None or held == unsettled):
            change[name] = value
        elif dataclasses.is_dataclass(held):
            change[field.name] = settled(held, name, value, unsettled)
    return dataclasses.replace(part, **change)


class Wrapper:
    """Abstract: what a wrapper passes on. A final class has the field `algorithm`, a `through()`."""

    algorithm: Algorithm

    @property
    def requires(self) -> frozenset[str]:
        return self.algorithm.requires

    @property
    def acts_with(self) -> tuple:
        """As `ActorCritic.acts_with`."""
        return getattr(self.algorithm, "acts_with", ())

    @property
    def chunk(self) -> int:
        """Actions in a chunk, 0 where actions are single."""
        return getattr(self.algorithm, "chunk", 0)

    @property
    def masked(self) -> bool:
        """Whether chunks that a termination cuts short are left out."""
        return getattr(self.algorithm, "masked", False)

    @property
    def history(self) -> int:
        """Observations in a history, 0 where they are single."""
        return getattr(self.algorithm, "history", 0)

    def check(self, batch: Batch) -> None:
        if hasattr(self.algorithm, "check"):
            self.algorithm.check(batch)


@pytree
class Chunked(Wrapper):
    """Q-chunking: the inner algorithm values and emits chunks of h actions, played open loop. Li, Zhou and Levine 2025,
    "Reinforcement Learning with Action Chunking", arXiv:2507.07969.

        Q(s_t, a_t ... a_{t+h-1})  <-  sum_{i<h} gamma^i r_{t+i} + gamma^h m Q(s_{t+h}, a')

    The sampler gives actions [B, h, A] with the rewards, masks and next observations of h steps; the inner algorithm
    sees vectors [B, h A]. A new chunk begins where the last is spent and where an episode begins. An on-policy
    algorithm observes single steps, each with its whole chunk and whether that began there."""

    algorithm: Algorithm = through()
    chunk: int = static(5, "actions in a chunk, played one after the other", symbol="h", low=1)
    masked: bool = static(False, "leave out chunks that a termination cuts short, instead of padding them")

    @property
    def inner(self) -> Any:
        """The algorithm for flat chunks."""
        inner = settled(self.algorithm, "action_size", self.chunk * action_size_of(self.algorithm))
        return settled(inner, "steps_per_action", self.chunk, 0)

    @property
    def burst(self) -> tuple[int, int]:
        """Of an on-policy algorithm; any other has none, here either."""
        return self.algorithm.burst

    @property
    def observe(self) -> Callable:
        """Of an on-policy algorithm; any other has none, here either."""
        inner = self.inner.observe

        def observe(state, slot: Batch, carry):
            chunks = carry["plan"].reshape(len(carry["plan"]), -1)
            begins = (carry["left"] == self.chunk - 1).astype(slot["rewards"].dtype)
            return inner(state, slot | {"actions": chunks, "begins": begins}, carry["inner"])

        return observe

    def flat(self, batch: Batch) -> Batch:
        """Chunks [B, h, A] as vectors [B, h A]."""
        shape = batch["actions"].shape if "actions" in batch else (0, self.chunk, 0)  # a missing key is named later
        if len(shape) != 3 or shape[1] != self.chunk:
            raise SettingsError(
                f"Chunks of {self.chunk} actions need batches with actions [B, {self.chunk}, A]; got {list(shape)}. "
                f"Ask the sampler for them: Sampler(chunk={self.chunk})."
            )
        chunks = {k: batch[k].reshape(shape[0], -1) for k in ("actions", "next_actions") if k in batch}
        return batch | chunks

    def check(self, batch: Batch) -> None:
        if hasattr(self.algorithm, "check"):
            self.inner.check(self.flat(batch))

    def init(self, key, batch: Batch):
        return self.inner.init(key, self.flat(batch))

    def update(self, state, batch: Batch, key):
        return self.inner.update(state, self.flat(batch), key)

    def act(self, state, observations, key, carry=(), *, greedy: bool = False):
        n, h, inner = batch_size(observations), self.chunk, self.inner

        def decide():
            chunks, kept = inner.act(state, observations, key, greedy=greedy)
            return {"plan": chunks.reshape(n, h, -1), "inner": kept}

        if carry == ():
            now, left = decide(), jnp.full(n, h, jnp.int32)
        else:
            spent = carry["left"] == 0
            choose = lambda new, old: jnp.where(spent.reshape(-1, *[1] * (new.ndim - 1)), new, old)
            anew = lambda old: jax.tree.map(choose, decide(), old)
            now = jax.lax.cond(spent.any(), anew, lambda old: old, {k: carry[k] for k in ("plan", "inner")})
            left = jnp.where(spent, h, carry["left"])
        actions = jnp.take_along_axis(now["plan"], (h - left)[:, None, None], 1)[:, 0]
        return actions, now | {"left": left - 1}


@pytree
class History(Wrapper):
    """The inner algorithm sees the last H observations, oldest first, as one vector; an episode's first observation
    stands in for those before it. Mnih et al. 2015 (frame stacking). A part of it with a field `frames` is told H there
    and may take the vector apart again, as the transformer of `policies/tokens.py` does to attend to each."""

    algorithm: Algorithm = through()
    history: int = static(2, "observations that the policy and the critic see", symbol="H", low=1)

    @property
    def inner(self) -> Any:
        """The algorithm for flat histories."""
        return settled(self.algorithm, "frames", self.history, 0)

    def flat(self, observations):
        """Histories [B, H, ...] as vectors [B, H ...]."""
        lengths = {x.shape[1] if x.ndim > 2 else 0 for x in jax.tree.leaves(observations)}
        if lengths != {self.history}:
            raise SettingsError(
                f"Histories of {self.history} observations need batches with observations [B, {self.history}, ...]; "
                f"got {[list(x.shape) for x in jax.tree.leaves(observations)]}. Ask the sampler for them: "
                f"Sampler(history={self.history})."
            )
        return jax.tree.map(lambda x: x.reshape(x.shape[0], -1), observations)

    def flat_batch(self, batch: Batch) -> Batch:
        return batch | {k: self.flat(batch[k]) for k in ("observations", "next_observations") if k in batch}

    def check(self, batch: Batch) -> None:
        if hasattr(self.algorithm, "check"):
            self.inner.check(self.flat_batch(batch))

    def init(self, key, batch: Batch):
        return self.inner.init(key, self.flat_batch(batch))

    def update(self, state, batch: Batch, key):
        return self.inner.update(state, self.flat_batch(batch), key)

    def act(self, state, observations, key, carry=(), *, greedy: bool = False):
        first = jax.tree.map(lambda x: jnp.repeat(x[:, None], self.history - 1, 1), observations)
        if carry == ():
            past, inner = first, ()
        else:
            begun, inner = carry["begun"] > 0, carry["inner"]
            past = jax.tree.map(
                lambda old, new: jnp.where(begun.reshape(-1, *[1] * (old.ndim - 1)), old, new), carry["past"], first
            )
        frames = jax.tree.map(lambda p, x: jnp.concatenate([p, x[:, None]], 1), past, observations)
        actions, inner = self.inner.act(state, self.flat(frames), key, inner, greedy=greedy)
        begun = jnp.ones(batch_size(observations), jnp.int32)
        return actions, {"past": jax.tree.map(lambda x: x[:, 1:], frames), "begun": begun, "inner": inner}


def anew(carry: Any, rows) -> Any:
    """What acting remembers, but that a new chunk begins in those `rows` [B]."""
    if not isinstance(carry, dict):
        return carry
    spent = {"left": jnp.where(rows, 0, carry["left"])} if "left" in carry else {}
    return {k: anew(v, rows) for k, v in carry.items()} | spent


def core_of(algorithm: Any) -> Any:
    """The algorithm without its wrappers."""
    return core_of(algorithm.algorithm) if isinstance(algorithm, Wrapper) else algorithm


def discount_of(algorithm: Any) -> float:
    """The algorithm's discount, which n-step and Monte-Carlo returns share; 0.99 where it has none."""
    core = core_of(algorithm)
    return float(getattr(getattr(core, "critic", core), "discount", 0.99))


def with_core(algorithm: Any, core: Any) -> Any:
    """The wrappers of `algorithm` around another core."""
    if not isinstance(algorithm, Wrapper):
        return core
    return dataclasses.replace(algorithm, algorithm=with_core(algorithm.algorithm, core))


def wrapped(algorithm: Any, name: str) -> Any:
    """`algorithm` in the wrapper that has the setting `name` ("chunk" or "history"), which it may have already: any
    other wrapper around a history around chunks."""
    cls = {"chunk": Chunked, "history": History}[name]
    if isinstance(algorithm, cls):
        return algorithm
    if isinstance(algorithm, Wrapper) and not (name == "history" and isinstance(algorithm, Chunked)):
        return dataclasses.replace(algorithm, algorithm=wrapped(algorithm.algorithm, name))
    if hasattr(algorithm, "observe") and (name != "chunk" or not hasattr(algorithm, "steps_per_action")):
        raise SettingsError(
            f"{type(algorithm).__name__} learns from single steps as they are played; leave out {name}."
        )
    return cls(algorithm=algorithm)


def action_size_of(algorithm: Any) -> int:
    """Size of the actions that an algorithm's policy emits."""
    found = core_of(algorithm)
    size = getattr(getattr(found, "policy", found), "action_size", None)
    if size is None:
        raise SettingsError(f"{type(found).__name__} names no action_size, so its actions cannot be chunked.")
    return size


def shaped(algorithm: Any, batch: Batch) -> Batch:
    """A batch of single transitions in the shapes that the algorithm's sampler gives: an example for `init`."""
    repeat = lambda n: lambda x: jnp.repeat(jnp.asarray(x)[:, None], n, 1)
    if chunk := getattr(algorithm, "chunk", 0):
        batch = batch | {k: repeat(chunk)(batch[k]) for k in ("actions", "next_actions") if k in batch}
    if history := getattr(algorithm, "history", 0):
        names = [k for k in ("observations", "next_observations") if k in batch]
        batch = batch | {k: jax.tree.map(repeat(history), batch[k]) for k in names}
    if names := {"candidates", "next_candidates"} & algorithm.requires:
        flat = jnp.reshape(batch["actions"], (batch_size(batch["observations"]), -1))
        batch = batch | dict.fromkeys(names, repeat(core_of(algorithm).extraction.samples)(flat))
    return batch

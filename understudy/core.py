"""The vocabulary of the library. Read this first.

    batch          dict of arrays [B, ...]: observations actions rewards masks next_observations, and declared extras
    observations   an array [B, ...] or a nested dict of such
    actions        [B, A] in [-1, 1]
    masks          [B] in [0, 1], the bootstrap weight: 1 - terminated; a time-out never cuts a bootstrap
    params         a plain pytree of arrays; state: params, optimiser states and counters, arrays only
    key            a jax.random key, passed and never stored: step i of a run uses fold_in(key, i)
    carry          what `act` hands to its next call, leaves [B, ...]; zeros are a fresh start, () is none at all
    E, B, A, K     ensemble, batch and action size, number of seeds; the ensemble axis comes first

An algorithm, a critic, an extraction and a policy are frozen dataclasses registered as pytrees: numbers are leaves
(a new value never recompiles, `vmap` sweeps them), structure is static (`--policy.hidden 512 512` is another program).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, dataclass_transform

import jax
import jax.numpy as jnp
import optax

Batch = dict[str, Any]
Metrics = dict[str, jax.Array]
Params = Any

TRANSITION = frozenset({"observations", "actions", "rewards", "masks", "next_observations"})

# What a policy may offer beyond `sample` and `loss`. A policy has a capability when it has the method of that name.
CAPABILITIES = {
    "mode": "mode(params, observations) -> actions [B, A]: the most likely action",
    "rsample": "rsample(params, observations, key) -> actions [B, A]: a sample that gradients pass through",
    "log_prob": "log_prob(params, observations, actions) -> [B]",
    "sample_and_log_prob": "sample_and_log_prob(params, observations, key) -> (actions [B, A], log_probs [B])",
    "latent": "latent(params, observations, noise) -> actions [B, A]: the map from noise to action",
    "distil": "distil(params, observations, actions, key) -> (imitation [B], distillation [B], actions [B, A])",
}


def leaf(default: float = dataclasses.MISSING, help: str = "", *, symbol: str = "", low=None, high=None):
    """A number of an algorithm: traced, swept by vmap, never a reason to recompile. `low` and `high` are inclusive."""
    return dataclasses.field(default=default, metadata=dict(help=help, symbol=symbol, low=low, high=high))


def static(default=dataclasses.MISSING, help: str = "", *, symbol: str = "", choices=None, low=None, high=None):
    """A field that changes shapes or code. Hashable; a new value compiles another program."""
    meta = dict(static=True, help=help, symbol=symbol, choices=choices, low=low, high=high)
    return dataclasses.field(default=default, metadata=meta)


def scratch():
    """A field of a state that only training needs: no deployed policy keeps it."""
    return dataclasses.field(metadata=dict(scratch=True))


def through():
    """The algorithm that a wrapper is around: its settings keep their names, as if it stood alone."""
    return dataclasses.field(metadata=dict(through=True))


@dataclass_transform(
    frozen_default=True, kw_only_default=True, field_specifiers=(leaf, static, through, scratch, dataclasses.field)
)
def pytree(cls):
    """Make `cls` a frozen keyword-only dataclass and a pytree."""
    return jax.tree_util.register_dataclass(dataclasses.dataclass(frozen=True, kw_only=True)(cls))


@pytree
class Net:
    """Parameters and the state of their optimiser."""

    params: Params
    opt: Any


def scale_by_adam(b1=0.9, b2=0.999, eps=1e-8):
    """optax.scale_by_adam with both bias corrections folded into two scalars, the efficient order of Kingma and Ba 2015
    (arXiv:1412.6980, end of section 2): one division for each parameter where optax takes three."""

    def update(grads, state, params=None):
        count = state.count + 1
        mu = optax.tree.update_moment(grads, state.mu, b1, 1)
        nu = optax.tree.update_moment(grads, state.nu, b2, 2)
        unbias = jnp.sqrt(-jnp.expm1(count * math.log(b2)))  # 1 - b2^t, without the cancellation
        step, floor = unbias / -jnp.expm1(count * math.log(b1)), eps * unbias
        updates = jax.tree.map(lambda m, v: step * m / (jnp.sqrt(v) + floor), mu, nu)
        return updates, optax.ScaleByAdamState(count=count, mu=mu, nu=nu)

    return optax.GradientTransformation(optax.scale_by_adam(b1, b2, eps).init, update)


def adam(learning_rate, decay_steps=0.0, after_decay=1.0):
    """Adam. Over the first `decay_steps` steps, where there are any, the rate falls to 0 along a half cosine; after
    them it is the constant `after_decay` learning_rate."""

    def rate(count):
        falling = 0.5 * (1 + jnp.cos(jnp.pi * count / jnp.maximum(decay_steps, 1.0)))
        return learning_rate * jnp.where(count < decay_steps, falling, jnp.where(decay_steps > 0, after_decay, 1.0))

    return optax.chain(scale_by_adam(), optax.scale_by_learning_rate(rate))


def net(params: Params, optimiser) -> Net:
    """A fresh Net: `params` with the optimiser's first state."""
    return Net(params=params, opt=optimiser.init(params))


def descend(net: Net, optimiser, loss: Callable, *args) -> tuple[Net, Metrics]:
    """Take one optimiser step on `loss(params, *args) -> (scalar, metrics)`.

    Only `net.params` is differentiated: whatever reaches the loss through `args` is a constant."""
    (value, metrics), grads = jax.value_and_grad(loss, has_aux=True)(net.params, *args)
    updates, opt = optimiser.update(grads, net.opt, net.params)
    return Net(params=optax.apply_updates(net.params, updates), opt=opt), metrics | {"loss": value}


@jax.custom_batching.custom_vmap
def lockstep(counter):
    """A counter of the state that is the same for every seed, as updates are: a branch on it stays one branch where
    seeds run in step, where `vmap` would compute every branch and choose. Of counters alone: a number of the algorithm
    may differ from one to the next where it is swept."""
    return counter


@lockstep.def_vmap
def _(size, batched, counter):
    return counter[0], False


def polyak(target: Params, online: Params, tau) -> Params:
    """target <- (1 - tau) target + tau online."""
    return jax.tree.map(lambda t, p: (1 - tau) * t + tau * p, target, online)


def prefix(name: str, metrics: Metrics) -> Metrics:
    """{'loss': ...} -> {'name/loss': ...}."""
    return {f"{name}/{k}": v for k, v in metrics.items()}


def batch_size(observations) -> int:
    """The leading axis of an observation tree."""
    return jax.tree.leaves(observations)[0].shape[0]

"""A learned model of the environment, where a step leads and whether the episode goes on; and policies valued in it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from understudy.core import Batch, Metrics, Net, Params, adam, descend, leaf, net, pytree, static
from understudy.moments import Moments
from understudy.networks import ACTIVATIONS, Ensemble, features

FAR = 5.0  # deviations: the largest predicted change


@pytree
class DynamicsState:
    """`change`: moments of s' - s in the data."""

    net: Net
    change: Moments


@pytree
class Dynamics:
    """The mean of E networks of (s, a), each fitted to (s' - s - mu) / sigma by squared error and to whether
    the episode goes on by cross-entropy; s is the vector of all features."""

    hidden: tuple[int, ...] = static((200, 200), "widths of the model's hidden layers", low=1)
    activation: str = static("swish", "activation of the model's hidden layers", choices=tuple(ACTIVATIONS))
    ensemble: int = static(5, "number of networks of the model", symbol="E", low=1)
    learning_rate: float = leaf(1e-3, "Adam's rate for the model", low=0.0)

    def networks(self, size: int) -> Ensemble:
        return Ensemble(self.ensemble, self.hidden, self.activation, bins=size + 1)

    def init(self, key, batch: Batch) -> DynamicsState:
        s = features(batch["observations"])
        params = self.networks(s.shape[-1]).init(key, s, batch["actions"])
        return DynamicsState(net=net(params, adam(self.learning_rate)), change=Moments.of(s))

    def predict(self, params, s, actions):
        """Normalised changes [E, B, O] and logits of the mask [E, B]."""
        out = self.networks(s.shape[-1]).apply(params, s, actions)
        return out[..., :-1], out[..., -1]

    def loss(self, params, s, actions, change, goes_on):
        predicted, logits = self.predict(params, s, actions)
        error = ((predicted - change) ** 2).mean(-1)
        goes_on = jnp.broadcast_to(goes_on, logits.shape).astype(logits.dtype)
        unsure = optax.sigmoid_binary_cross_entropy(logits, goes_on)
        return (error + unsure).mean(-1).sum(), {"error": error.mean(), "mask_error": unsure.mean()}

    def update(self, state: DynamicsState, batch: Batch) -> tuple[DynamicsState, Metrics]:
        s, following = features(batch["observations"]), features(batch["next_observations"])
        known = state.change.add(following - s)
        change = (following - s - known.mean) / jnp.sqrt(known.variance + 1e-8)
        learned, metrics = descend(
            state.net, adam(self.learning_rate), self.loss, s, batch["actions"], change, batch["masks"] > 0
        )
        return dataclasses.replace(state, net=learned, change=known), metrics

    def step(self, state: DynamicsState, s, actions):
        """Where a step from s [B, O] leads, [B, O], and the probability that the episode goes on, [B]."""
        change, logits = self.predict(state.net.params, s, actions)
        change = jnp.clip(change.mean(0), -FAR, FAR) * jnp.sqrt(state.change.variance + 1e-8)
        return s + state.change.mean + change, jax.nn.sigmoid(logits).mean(0)


def choose(condition, new, old):
    """new where the condition, [] or [n], holds, else old: leaves [n, ...]."""
    broad = lambda x: condition.reshape(condition.shape + (1,) * (x.ndim - condition.ndim))
    return jax.tree.map(lambda a, b: jnp.where(broad(a), a, b), new, old)


@pytree
class Trial:
    """n candidate policies played in the model from R states each, a step in each update. AM-Q: the mean of Q(s, pi(s))
    over all steps of all episodes that still run.

    `states` [n, R, O]; `alive` [n, R]: the chance that the episode still runs; sums of values and of chances [n]."""

    candidates: Params
    states: jax.Array
    alive: jax.Array
    total: jax.Array
    mass: jax.Array

    @classmethod
    def begin(cls, candidates: Params, states) -> Trial:
        """Of candidates [n, ...] from `states` [n, R, O]."""
        n = len(states)
        return cls(candidates=candidates, states=states, alive=jnp.ones(states.shape[:2]), total=jnp.zeros(n),
                   mass=jnp.zeros(n))  # fmt: skip

    def play(self, act: Callable, q: Callable, step: Callable) -> Trial:
        """One step further: `act(params, s)`, `q(s, a)` [R] and `step(s, a)`, as of `Dynamics`, for s [R, O]."""

        def walk(params, s):
            actions = act(params, s)
            return q(s, actions), *step(s, actions)

        values, states, goes_on = jax.vmap(walk)(self.candidates, self.states)
        return dataclasses.replace(
            self, states=states, alive=self.alive * goes_on, total=self.total + (self.alive * values).sum(1),
            mass=self.mass + self.alive.sum(1),
        )  # fmt: skip

    @property
    def value(self) -> jax.Array:
        """AM-Q so far: [n]."""
        return self.total / jnp.maximum(self.mass, 1e-8)

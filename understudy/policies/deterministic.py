"""Deterministic policy a = tanh(f(s)), the policy of TD3 and its descendants."""

from __future__ import annotations

import jax.numpy as jnp

from understudy.algorithm import Policy
from understudy.core import pytree, static
from understudy.networks import ACTIVATIONS, LAYER_NORM, MLP


@pytree
class Deterministic(Policy):
    """a = tanh(f(s)); imitation by squared error, summed over dimensions."""

    action_size: int = static(help="size of the action vector", symbol="A", low=1)
    hidden: tuple[int, ...] = static((256, 256), "widths of the hidden layers", low=1)
    activation: str = static("relu", "activation of the hidden layers", choices=tuple(ACTIVATIONS))
    layer_norm: str = static("none", "layer norm, before or after the activation", choices=LAYER_NORM)

    @property
    def network(self) -> MLP:
        return MLP(self.action_size, self.hidden, self.activation, self.layer_norm, final_scale=1e-2)

    def init(self, key, observations, actions):
        return self.network.init(key, observations)

    def mode(self, params, observations):
        return jnp.tanh(self.network.apply(params, observations))

    def rsample(self, params, observations, key):
        return self.mode(params, observations)

    sample = rsample

    def loss(self, params, observations, actions, key):
        return ((self.mode(params, observations) - actions) ** 2).sum(-1)

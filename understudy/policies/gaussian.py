"""Diagonal Gaussian policy, unsquashed: mean from the network (bounded by tanh), deviation constant, learned or
state-dependent. The policy of IQL and of behaviour cloning."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from understudy.algorithm import Policy
from understudy.core import leaf, pytree, static
from understudy.losses import gaussian_log_prob
from understudy.networks import ACTIVATIONS, LAYER_NORM, MLP

DEVIATIONS = ("constant", "learned", "state")


@pytree
class Gaussian(Policy):
    """a = clip(mean(s) + std eps, -1, 1). Log-probabilities are those of the unclipped Gaussian, as in IQL."""

    action_size: int = static(help="size of the action vector", symbol="A", low=1)
    hidden: tuple[int, ...] = static((256, 256), "widths of the hidden layers", low=1)
    activation: str = static("relu", "activation of the hidden layers", choices=tuple(ACTIVATIONS))
    layer_norm: str = static("none", "layer norm, before or after the activation", choices=LAYER_NORM)
    deviation: str = static(
        "learned", "standard deviation: constant, learned (one per dimension) or state (from the network)",
        choices=DEVIATIONS,
    )  # fmt: skip
    std: float = leaf(1.0, "the deviation where it is constant", symbol="sigma", low=0.0)
    log_std_min: float = leaf(-5.0, "lower bound of a learned log deviation")
    log_std_max: float = leaf(2.0, "upper bound of a learned log deviation")
    tanh_mean: bool = static(True, "bound the mean by tanh")

    @property
    def network(self) -> MLP:
        out = self.action_size * (2 if self.deviation == "state" else 1)
        return MLP(out, self.hidden, self.activation, self.layer_norm, final_scale=1e-2)

    def init(self, key, observations, actions):
        params = {"network": self.network.init(key, observations)}
        if self.deviation == "learned":
            params["log_std"] = jnp.zeros(self.action_size)
        return params

    def moments(self, params, observations):
        """Mean and log deviation, each [B, A]."""
        out = self.network.apply(params["network"], observations)
        mean = out[..., : self.action_size]
        if self.deviation == "state":
            log_std = jnp.clip(out[..., self.action_size :], self.log_std_min, self.log_std_max)
        elif self.deviation == "learned":
            log_std = jnp.broadcast_to(jnp.clip(params["log_std"], self.log_std_min, self.log_std_max), mean.shape)
        else:
            log_std = jnp.full(mean.shape, jnp.log(jnp.maximum(self.std, 1e-8)))
        return jnp.tanh(mean) if self.tanh_mean else mean, log_std

    def mode(self, params, observations):
        return jnp.clip(self.moments(params, observations)[0], -1, 1)

    def unclipped(self, params, observations, key):
        mean, log_std = self.moments(params, observations)
        return mean + jnp.exp(log_std) * jax.random.normal(key, mean.shape)

    def rsample(self, params, observations, key):
        return jnp.clip(self.unclipped(params, observations, key), -1, 1)

    sample = rsample

    def log_prob(self, params, observations, actions):
        return gaussian_log_prob(actions, *self.moments(params, observations))

    def loss(self, params, observations, actions, key):
        return -self.log_prob(params, observations, actions)

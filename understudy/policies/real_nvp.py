"""Real NVP: an invertible flow given the observation, trained by maximum likelihood. Dinh, Sohl-Dickstein and Bengio
2017, arXiv:1605.08803; as a behavioural prior Singh et al. 2021 (PARROT), arXiv:2011.10024."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from understudy.algorithm import Policy
from understudy.core import batch_size, leaf, pytree, static
from understudy.losses import gaussian_log_prob
from understudy.networks import ACTIVATIONS, LAYER_NORM, MLP


@pytree
class RealNVP(Policy):
    """a = clip(f(z; s), -1, 1), z ~ N(0, I), through `layers` couplings, each on every other dimension in turn:
        x_rest <- x_rest exp(v) + t,  (v, t) from s and the dimensions that stay                      (eq. 7)
        log p(a|s) = log N(f^-1(a; s)) - sum v                                                        (eq. 6 and 8)
    Log-probabilities are those of the unclipped flow, as for the Gaussian policy. v is bounded, so that actions that
    repeat exactly (a gripper that is open or shut) have a finite likelihood."""

    action_size: int = static(help="size of the action vector", symbol="A", low=1)
    hidden: tuple[int, ...] = static((256, 256), "widths of each coupling's hidden layers", low=1)
    activation: str = static("relu", "activation of the hidden layers", choices=tuple(ACTIVATIONS))
    layer_norm: str = static("none", "layer norm, before or after the activation", choices=LAYER_NORM)
    layers: int = static(4, "coupling layers", low=2)
    log_scale_max: float = leaf(3.0, "bound of |v|, a coupling's log scale", symbol="v", low=1e-3)

    @property
    def network(self) -> MLP:
        return MLP(2 * self.action_size, self.hidden, self.activation, self.layer_norm, final_scale=1e-2)

    def init(self, key, observations, actions):
        keys = jax.random.split(key, self.layers)
        return {f"coupling_{i}": self.network.init(keys[i], observations, actions) for i in range(self.layers)}

    def coupling(self, params, observations, x, i: int):
        """v and t of layer i, 0 in the dimensions that stay: [B, A] each."""
        stays = (jnp.arange(self.action_size) + i) % 2
        v, t = jnp.split(self.network.apply(params[f"coupling_{i}"], observations, x * stays), 2, -1)
        v = self.log_scale_max * jnp.tanh(v / self.log_scale_max)
        return (1 - stays) * v, (1 - stays) * t

    def flow(self, params, observations, noise):
        """f(z; s) before it is clipped [B, A], and log |det df/dz| [B]."""
        x, log_det = noise, 0.0
        for i in range(self.layers):
            v, t = self.coupling(params, observations, x, i)
            x, log_det = x * jnp.exp(v) + t, log_det + v.sum(-1)
        return x, log_det

    def inverse(self, params, observations, actions):
        """f^-1(a; s) [B, A], and log |det df/dz| there [B]."""
        x, log_det = actions, 0.0
        for i in reversed(range(self.layers)):
            v, t = self.coupling(params, observations, x, i)
            x, log_det = (x - t) * jnp.exp(-v), log_det + v.sum(-1)
        return x, log_det

    def latent(self, params, observations, noise):
        return jnp.clip(self.flow(params, observations, noise)[0], -1, 1)

    def sample_and_log_prob(self, params, observations, key):
        z = jax.random.normal(key, (batch_size(observations), self.action_size))
        x, log_det = self.flow(params, observations, z)
        return jnp.clip(x, -1, 1), gaussian_log_prob(z, 0.0, 0.0) - log_det

    def unclipped(self, params, observations, key):
        return self.flow(params, observations, jax.random.normal(key, (batch_size(observations), self.action_size)))[0]

    def rsample(self, params, observations, key):
        return self.sample_and_log_prob(params, observations, key)[0]

    sample = rsample

    def log_prob(self, params, observations, actions):
        z, log_det = self.inverse(params, observations, actions)
        return gaussian_log_prob(z, 0.0, 0.0) - log_det

    def loss(self, params, observations, actions, key):
        return -self.log_prob(params, observations, actions)

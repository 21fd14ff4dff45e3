"""Mixture of Gaussians, the policy of robomimic's BC-GMM. Bishop 1994, "Mixture Density Networks"; Mandlekar et al.
2021, arXiv:2108.03298."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from understudy.algorithm import Policy
from understudy.core import leaf, pytree, static
from understudy.losses import mixture_log_prob
from understudy.networks import ACTIVATIONS, LAYER_NORM, MLP


@pytree
class Mixture(Policy):
    """a = clip(u), u ~ sum_k w_k(s) N(tanh m_k(s), sigma_k(s)^2). Log-probabilities are those of u."""

    action_size: int = static(help="size of the action vector", symbol="A", low=1)
    hidden: tuple[int, ...] = static((256, 256), "widths of the hidden layers", low=1)
    activation: str = static("relu", "activation of the hidden layers", choices=tuple(ACTIVATIONS))
    layer_norm: str = static("none", "layer norm, before or after the activation", choices=LAYER_NORM)
    components: int = static(5, "Gaussians in the mixture", symbol="K", low=1)
    log_std_min: float = leaf(-5.0, "lower bound of a log deviation")
    log_std_max: float = leaf(2.0, "upper bound of a log deviation")

    @property
    def network(self) -> MLP:
        return MLP(self.components * (1 + 2 * self.action_size), self.hidden, self.activation, self.layer_norm)

    def init(self, key, observations, actions):
        return self.network.init(key, observations)

    def parts(self, params, observations):
        """Logits [B, K], means and log deviations, each [B, K, A]."""
        out = self.network.apply(params, observations)
        logits, out = out[..., : self.components], out[..., self.components :]
        mean, log_std = jnp.split(out.reshape(*out.shape[:-1], self.components, 2 * self.action_size), 2, -1)
        return logits, jnp.tanh(mean), jnp.clip(log_std, self.log_std_min, self.log_std_max)

    def mode(self, params, observations):
        """The mean of the component of largest weight."""
        logits, mean, _ = self.parts(params, observations)
        return jnp.take_along_axis(mean, logits.argmax(-1)[..., None, None], -2)[..., 0, :]

    def unclipped(self, params, observations, key):
        key_component, key_noise = jax.random.split(key)
        logits, mean, log_std = self.parts(params, observations)
        chosen = jax.random.categorical(key_component, logits)[..., None, None]
        mean, log_std = (jnp.take_along_axis(x, chosen, -2)[..., 0, :] for x in (mean, log_std))
        return mean + jnp.exp(log_std) * jax.random.normal(key_noise, mean.shape)

    def sample(self, params, observations, key):
        return jnp.clip(self.unclipped(params, observations, key), -1, 1)

    def log_prob(self, params, observations, actions):
        return mixture_log_prob(actions, *self.parts(params, observations))

    def loss(self, params, observations, actions, key):
        return -self.log_prob(params, observations, actions)

"""One-step flow policy: a flow that imitates, and a network that maps noise to its actions in one step and acts.
The policy of FQL, Park, Li and Levine 2025, arXiv:2502.02538."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from understudy.algorithm import Policy
from understudy.core import pytree, static
from understudy.networks import ACTIVATIONS, LAYER_NORM, MLP
from understudy.policies.flow import Flow


@pytree
class OneStepFlow(Policy):
    """a = clip(mu(s, z)), z ~ N(0, I); params {"flow", "one_step"}. Imitation trains both: flow matching for the flow,
    distillation |mu(s, z) - flow(s, z)|^2 for the one-step network, each a mean over dimensions."""

    action_size: int = static(help="size of the action vector", symbol="A", low=1)
    hidden: tuple[int, ...] = static((256, 256), "widths of the hidden layers, of both networks", low=1)
    activation: str = static("gelu", "activation of the hidden layers", choices=tuple(ACTIVATIONS))
    layer_norm: str = static("none", "layer norm, before or after the activation", choices=LAYER_NORM)
    steps: int = static(10, "Euler steps of the flow", symbol="M", low=1)

    @property
    def flow(self) -> Flow:
        return Flow(action_size=self.action_size, hidden=self.hidden, activation=self.activation,
                    layer_norm=self.layer_norm, steps=self.steps)  # fmt: skip

    @property
    def network(self) -> MLP:
        return MLP(self.action_size, self.hidden, self.activation, self.layer_norm)

    def init(self, key, observations, actions):
        key_flow, key_one_step = jax.random.split(key)
        one_step = self.network.init(key_one_step, observations, actions)
        return {"flow": self.flow.init(key_flow, observations, actions), "one_step": one_step}

    def latent(self, params, observations, noise):
        return jnp.clip(self.network.apply(params["one_step"], observations, noise), -1, 1)

    def rsample(self, params, observations, key):
        return self.latent(params, observations, self.flow.noise(observations, key))

    sample = rsample

    def distil(self, params, observations, actions, key):
        """Flow-matching loss [B], distillation loss [B], and the one-step actions [B, A] of the latter."""
        key_flow, key_noise = jax.random.split(key)
        matching = self.flow.loss(params["flow"], observations, actions, key_flow)
        z = self.flow.noise(observations, key_noise)
        teacher = self.flow.latent(jax.lax.stop_gradient(params["flow"]), observations, z)
        student = self.network.apply(params["one_step"], observations, z)
        return matching, ((student - teacher) ** 2).mean(-1), jnp.clip(student, -1, 1)

    def loss(self, params, observations, actions, key):
        matching, distillation, _ = self.distil(params, observations, actions, key)
        return matching + distillation

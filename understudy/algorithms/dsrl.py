"""DSRL. Wagenmaker et al. 2025, "Steering Your Diffusion Policy with Latent Space Reinforcement Learning",
arXiv:2506.15799.

Offline, the base: a diffusion or flow policy a = f(s, z), z ~ N(0, I), that imitates. Online it is frozen, and SAC acts
by choosing its noise, z = b w with w ~ pi(.|s) in [-1, 1]. Noise-aliased form (DSRL-NA, Algorithm 1), each update:
    y     = r + gamma m (min_j Qbar^A_j(s', f(s', z')) - alpha log pi(w'|s')),  z' from pi(.|s')
    Q^A_i <- descend  E (Q^A_i(s, a) - y)^2                      on actions: any data, whatever noise they came from
    Q^W_i <- descend  E (Q^W_i(s, z) - Q^A_i(s, f(s, z)))^2,  z ~ N(0, I)                      on noise: distilled
    psi   <- descend  E [alpha log pi(w|s) - min_j Q^W_j(s, z)]  no gradient goes through f
The policy's loss is improvement (SAC's) + imitation (the base's): offline the weight of the first is 0, online that of
the second, and the parameters of the base take no step at all; offline the critics rest. The authors' runs: utd 20, one
distillation for two such updates, b 1.5, tanh networks of 3 layers with layer norm, target entropy 0.
Deviations: Q^W takes z, theirs w; half of each batch are the data by default, where theirs have none and begin with
steps of the base (--switch drop+warmup:N). DSRL-SAC, the other form, needs the noise of each recorded action, which
data lack.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax

from understudy.algorithm import ActorCritic
from understudy.algorithms.parrot import Steered
from understudy.algorithms.sac import soft_next_value
from understudy.core import Batch, Metrics, Net, descend, net, prefix, pytree
from understudy.critics import BootstrapCritic, QState
from understudy.policies.latent import Latent


@pytree
class NoiseAliasedState(QState):
    """Q networks over actions, their targets, and Q networks over noise."""

    q: Net
    target: Any
    noise: Net


@pytree
class NoiseAliasedCritic(BootstrapCritic):
    """Soft TD over actions, distilled into values of the noise that they come from."""

    needs = ("sample_and_log_prob", "latent")

    def init(self, key, batch: Batch) -> NoiseAliasedState:
        key_q, key_noise = jax.random.split(key)
        state = super().init(key_q, batch)
        noise = self.networks.init(key_noise, batch["observations"], batch["actions"])
        return NoiseAliasedState(q=state.q, target=state.target, noise=net(noise, self.optimiser))

    def noise_q(self, state: NoiseAliasedState, observations, noise) -> jax.Array:
        """Q^W(s, z): [B]."""
        return self.reduce(self.qs(state.noise.params, observations, noise), self.aggregate)

    def distillation_loss(self, params, q, observations, noise):
        """E (Q^W_i(s, z) - Q^A_i)^2, summed over the ensemble; q [E, B]."""
        return ((self.qs(params, observations, noise) - q) ** 2).mean(-1).sum(), {}

    def update(self, state: NoiseAliasedState, batch: Batch, actor, key) -> tuple[NoiseAliasedState, Metrics]:
        key_target, key_noise = jax.random.split(key)
        value = soft_next_value(self, state, batch, actor, key_target, entropy=True)
        targets = batch["rewards"] + self.discount * batch["masks"] * value
        learned, metrics = self.learn(state, self.q_loss, targets, batch, key)
        noise = jax.random.normal(key_noise, batch["actions"].shape)
        actions = actor.policy.latent(actor.params, batch["observations"], noise)
        q = self.qs(learned.q.params, batch["observations"], actions)
        noise, distilled = descend(state.noise, self.optimiser, self.distillation_loss, q, batch["observations"], noise)
        return dataclasses.replace(learned, noise=noise), metrics | prefix("noise", distilled)


@pytree
class NoiseMaxEnt(Steered):
    """improvement (alpha log pi(w|s) - Q^W(s, z)) + imitation, the loss of the base."""

    made_for = Latent
    needs_critic = ("noise_q",)

    def value(self, policy, params, critic, critic_state, observations, key):
        noise, log_probs = policy.steer(params, observations, key)
        return critic.noise_q(critic_state, observations, noise), log_probs


def dsrl(action_size: int) -> ActorCritic:
    """DSRL: a flow that imitates, and a policy of its noise that climbs values distilled into noise space."""
    return ActorCritic(
        critic=NoiseAliasedCritic(hidden=(256, 256, 256), activation="tanh", layer_norm="before"),
        extraction=NoiseMaxEnt(target_entropy=0.0),
        policy=Latent(action_size=action_size, hidden=(256, 256, 256), activation="tanh", layer_norm="before"),
    )

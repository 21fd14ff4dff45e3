"""IDQL. Hansen-Estruch et al. 2023, "IDQL: Implicit Q-Learning as an Actor-Critic Method with Diffusion Policies",
arXiv:2304.10573.

Each update, the critic of IQL and a diffusion policy that imitates (algorithms 1 and 2):
    V, Q   <- descend as in IQL (algorithms/iql.py)
    phi    <- descend  E |eps_phi(s, x_t, t) - eps|^2;   phibar <- (1 - tau) phibar + tau phi
To act: N samples of phibar at s; the one of highest Q(s, a), which is what the authors' code does in evaluation and
live, or one drawn with probability in proportion to w(s, a) = |tau - 1(Q(s, a) < V(s))|, the weight under which the
expectile is the policy's value (algorithm 3; live only, extraction.live = expectile).
Defaults are the authors' for locomotion: expectile .7 (antmaze .9), N = 64 (fine-tuning 128), an LN-ResNet of three
blocks with dropout .1, T = 5 vp steps, the noisy action clipped after each. Deviations: Adam without weight decay, no
layer norm at the value network's input, the critic steps before the policy, time has 128 features, not 256; live, the
policy imitates on, where the authors' is frozen.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from understudy.algorithm import ActorCritic, Extraction
from understudy.algorithms.iql import IQLCritic
from understudy.core import pytree, static
from understudy.extractions import Imitate, candidates, pick
from understudy.policies.diffusion import Diffusion


@pytree
class Implicit(Extraction):
    """Imitate; act with one of N samples: the best, or live one drawn by the weights that the expectile implies."""

    needs_critic = ("advantage", "expectile")
    samples: int = static(64, "samples to choose from", symbol="N", low=1)
    live: str = static(
        "best", "which sample acts live: the best, or one drawn by expectile weights", choices=("best", "expectile")
    )

    def compare(self, critic, state):
        """(s, a) -> A(s, a) and w(s, a) = |tau - 1(A < 0)|, each [B]."""

        def weigh(observations, actions):
            advantage = critic.advantage(state, observations, actions)
            return advantage, jnp.where(advantage > 0, critic.expectile, 1 - critic.expectile)

        return weigh

    def choose(self, policy, params, q, observations, key, *, greedy=False):
        key_samples, key_choice = jax.random.split(key)
        actions = candidates(policy, params, observations, key_samples, self.samples)
        advantage, weight = jax.vmap(lambda a: q(observations, a))(actions)  # [N, B]
        if greedy or self.live == "best":
            return pick(actions, advantage.argmax(0))
        return pick(actions, jax.random.categorical(key_choice, jnp.log(weight), axis=0))

    def loss(self, params, aux, policy, critic, critic_state, batch, key):
        return Imitate().loss(params, aux, policy, critic, critic_state, batch, key)


def idql(action_size: int) -> ActorCritic:
    """Implicit diffusion Q-learning: in-sample values, and the best of 64 samples of an averaged diffusion policy."""
    return ActorCritic(
        critic=IQLCritic(expectile=0.7),
        extraction=Implicit(),
        policy=Diffusion(action_size=action_size, network="ln_resnet", activation="swish", dropout=0.1, time="fourier",
                         time_size=128, clip="noisy", variance="beta"),
        decay_steps=-1.0,
        act_average=True,
        target_policy_tau=0.001,
    )  # fmt: skip

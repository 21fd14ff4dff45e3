"""PARROT. Singh et al. 2021, "Parrot: Data-Driven Behavioral Priors for Reinforcement Learning", arXiv:2011.10024.

Offline, the behavioural prior: an invertible flow a = f(z; s), z ~ N(0, I), fitted to the data by maximum likelihood,
    phi   <- descend  -E log p(a|s),  log p(a|s) = log N(f^-1(a; s)) + log |det d f^-1 / da|   (policies/real_nvp.py)
Online it is frozen, and SAC acts in its latent space, where a = f(z; s) with z = b w, w ~ pi(.|s) in [-1, 1]:
    y     = r + gamma m (min_j Qbar_j(s', f(z'; s')) - alpha log pi(w'|s'))
    theta <- descend  E (Q_i(s, a) - y)^2
    psi   <- descend  E [alpha log pi(w|s) - min_j Q_j(s, f(z; s))]
The policy's loss is improvement (SAC's) + imitation (the prior's): offline the weight of the first is 0, online that of
the second, and the parameters of the prior take no step at all.
Deviations: Q sees the action, where the paper's sees z; f is invertible, so that each is a function of the other, and
recorded actions need no inverse (beyond the bound b they have none). b is 2 here.
"""

from __future__ import annotations

import jax

from understudy.algorithm import ActorCritic
from understudy.algorithms.sac import Entropic, SoftTD
from understudy.core import Batch, leaf, pytree
from understudy.policies.latent import Latent
from understudy.policies.real_nvp import RealNVP


@pytree
class Steered(Entropic):
    """Abstract: improvement (alpha log pi(w|s) - Q) + imitation, the loss of the base. A final class adds `value`, from
    (policy, params, critic, critic_state, observations, key) to Q and log pi(w|s), [B] each."""

    imitation: float = leaf(1.0, "weight of imitation, which trains the base; 0 freezes it", low=0.0)
    improvement: float = leaf(1.0, "weight of the value, which trains the steering policy", low=0.0)

    def loss(self, params, aux, policy, critic, critic_state, batch: Batch, key):
        key_value, key_imitation = jax.random.split(key)
        q, log_probs = self.value(policy, params, critic, critic_state, batch["observations"], key_value)
        soft, metrics = self.soft_loss(aux, log_probs, q, batch["actions"].shape[-1])
        imitation = policy.loss(params, batch["observations"], batch["actions"], key_imitation).mean()
        return self.improvement * soft + self.imitation * imitation, metrics | {"imitation": imitation}


@pytree
class LatentMaxEnt(Steered):
    """improvement (alpha log pi(w|s) - Q(s, f(z; s))) + imitation -log p(a|s)."""

    def value(self, policy, params, critic, critic_state, observations, key):
        actions, log_probs = policy.sample_and_log_prob(params, observations, key)
        return critic.q(critic_state, observations, actions), log_probs


def parrot(action_size: int) -> ActorCritic:
    """PARROT: an invertible flow that imitates, and SAC in its latent space."""
    prior = RealNVP(action_size=action_size)
    return ActorCritic(
        critic=SoftTD(), extraction=LatentMaxEnt(), policy=Latent(action_size=action_size, base=prior, bound=2.0)
    )

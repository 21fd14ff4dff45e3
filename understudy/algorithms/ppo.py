"""PPO. Schulman et al. 2017, "Proximal Policy Optimization Algorithms", arXiv:1707.06347, with the advantages of
Schulman et al. 2015, arXiv:1506.02438.

T steps of each of L environments under the policy pi_old, then for each of several epochs over them in minibatches:
    A_t   = delta_t + gamma lambda A_{t+1},  delta_t = r_t + gamma m_t V_old(s_{t+1}) - V_old(s_t)
    theta <- descend  -E [min(rho A, clip(rho, 1 - eps, 1 + eps) A) + c_H H],  rho = pi(a|s) / pi_old(a|s)    (eq. 7)
    phi   <- descend  E (A + V_old(s) - V(s))^2
A is normalised in each minibatch; H, the entropy, is estimated from fresh samples. Rollouts, advantages and the value
are those of `understudy.on_policy`. Where there is an offline phase, the policy imitates the data in it.
Deviations: one Adam for the policy and one for the value, no clipping of the value's loss or of gradients; an action
beyond [-1, 1] is clipped before it is played, and its density is that of the clipped action.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from understudy.algorithm import check_policy, mode_or_sample
from understudy.core import Batch, leaf, pytree
from understudy.losses import clipped_surrogate
from understudy.on_policy import Cloning, OnPolicyState
from understudy.policies.gaussian import Gaussian


@pytree
class PPO(Cloning):
    """Clipped policy gradient on what the policy itself has just played."""

    entropy: float = leaf(0.0, "weight of the policy's entropy", symbol="c_H", low=0.0)

    def check(self, batch: Batch) -> None:
        super().check(batch)
        check_policy("PPO", ("log_prob",), self.policy)

    def policy_loss(self, params, old, batch: Batch, key):
        observations, actions, log_prob = batch["observations"], batch["actions"], self.policy.log_prob
        ratio = jnp.exp(log_prob(params, observations, actions) - log_prob(old, observations, actions))
        surrogate = clipped_surrogate(ratio, batch["advantages"], self.clip).mean()
        draw = getattr(self.policy, "unclipped", self.policy.sample)  # of the density that log_prob is
        fresh = log_prob(params, observations, jax.lax.stop_gradient(draw(params, observations, key)))
        # The entropy's gradient is -E[log pi grad log pi], for any policy, and E[grad log pi] is 0.
        score = (jax.lax.stop_gradient(fresh - fresh.mean()) * fresh).mean()
        clipped = (jnp.abs(ratio - 1) > self.clip).mean()
        metrics = {"surrogate": surrogate, "entropy": -fresh.mean(), "clipped": clipped}
        return self.entropy * score - surrogate, metrics

    def act(self, state: OnPolicyState, observations, key, carry: Any = (), *, greedy: bool = False):
        return mode_or_sample(self.policy, state.actor.params, observations, key, greedy), carry


def ppo(action_size: int) -> PPO:
    """Proximal policy optimisation: on-policy, from scratch or from a clone."""
    return PPO(policy=Gaussian(action_size=action_size))  # the shape of BC's, so that a clone can go on with it

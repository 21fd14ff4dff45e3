"""RLPD. Ball et al. 2023, "Efficient Online Reinforcement Learning with Offline Data", arXiv:2302.02948.

Algorithm 1: SAC with three additions, each environment step taking G updates:
    half of each batch from the prior data, half from the replay            (symmetric sampling, section 4.1)
    y       = r + gamma m (min_{j in Z} Qbar_j(s', a') - alpha log pi(a'|s')),  Z a random pair of E networks
    theta_i <- descend  E (Q_i(s, a) - y)^2,  layer norm in Q                                 (section 4.2)
    phi     <- descend  E [alpha log pi(a|s) - mean_i Q_i(s, a)]
The first addition and G belong to the phase: no offline phase, offline_share 0.5, utd 20 (the paper) or less.
Deviation: the paper steps the policy and the temperature once per environment step, that is every G-th update; set
policy_delay = G for that. Here the policy follows each update.
"""

from __future__ import annotations

from understudy.algorithm import ActorCritic
from understudy.algorithms.sac import MaxEnt, SoftTD
from understudy.policies.tanh_gaussian import TanhGaussian


def rlpd(action_size: int) -> ActorCritic:
    """RLPD: SAC with ten layer-normed critics, and prior data in half of each batch (set in the phase)."""
    return ActorCritic(
        critic=SoftTD(ensemble=10, subset=2, layer_norm="before", aggregate="mean"),
        extraction=MaxEnt(target_entropy=-0.5),
        policy=TanhGaussian(action_size=action_size),
    )

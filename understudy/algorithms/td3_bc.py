"""TD3+BC. Fujimoto and Gu 2021, "A Minimalist Approach to Offline Reinforcement Learning", arXiv:2106.06860.

TD3 (arXiv:1802.09477) with imitation added to the policy's loss, each update:
    a'    = clip(pibar(s') + clip(eps, -c, c), -1, 1),  eps ~ N(0, sigma)
    Q_i   <- descend E (r + gamma m min_j Qbar_j(s', a') - Q_i(s, a))^2
    every d-th update:  pi <- descend -lambda Q(s, pi(s)) + (pi(s) - a)^2,  lambda = alpha / mean |Q|   (eq. 3, 5);
                        the targets Qbar, pibar follow.
Here imitation carries the weight instead, summed over the A action dimensions where the paper averages them:
extraction.alpha = 1 / (2.5 A) with lambda = 1 / mean |Q| is the paper's alpha = 2.5.
Deviations: in chunks of h actions the default is that of one, h times the paper's weight; the policy climbs the
reduction `aggregate` (TD3: the first network); observations are not normalised.
"""

from __future__ import annotations

from understudy.algorithm import ActorCritic
from understudy.critics import TD
from understudy.extractions import DDPGBC
from understudy.policies.deterministic import Deterministic


def td3_bc(action_size: int) -> ActorCritic:
    """TD3 with behaviour cloning: the smallest offline method that works, and a sound online one."""
    return ActorCritic(
        critic=TD(target_noise=0.2, target_noise_clip=0.5, target_period=2),
        extraction=DDPGBC(alpha=0.4 / action_size, exploration=0.1),
        policy=Deterministic(action_size=action_size),
        target_policy=True,
        policy_delay=2,
    )

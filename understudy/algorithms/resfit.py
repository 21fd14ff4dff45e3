"""ResFiT. Ankile et al. 2025, "Residual Off-Policy RL for Finetuning Behavior Cloning Policies", arXiv:2509.19301.

Offline, the base: behaviour cloning of any policy class. Online the base a_b is frozen, and each update is
    a'      = clip(a_b' + pi(s', a_b') + clip(eps, -c, c), -1, 1),  a_b' the base's action at s',  eps ~ N(0, sigma)
    y       = R_n + gamma^n m min_{j in Z} Qbar_j(s', a'),  Z a random pair of E networks
    theta_i <- descend  E (Q_i(s, a) - y)^2,  a the action that was executed, layer norm in Q
    every d-th update:  phi <- descend  -E mean_i Q_i(s, a_b + pi(s, a_b)),  |pi| <= scale
    thetabar, phibar    follow
pi starts at exactly 0. Half of each batch is demonstrations (the phase), R_n is the sampler's n-step return, d the utd.
The authors' runs: utd 4, n 3 or 5, gamma .99 or .995, scale .1 or .2, sigma .05 or .025, networks (1024, 1024), rates
1e-4 and, for pi, 1e-6.
The policy's loss is -E Q + alpha imitation: offline the scale is 0, so that pi rests, online alpha is, so that the
parameters of the base take no step at all.
Deviations: the critic learns offline too; the warm-up's noise is that of later steps (theirs uniform in +-.2), and no
10,000 updates of the critic alone come after it. a_b is drawn again in each update, where their replay keeps it (their
base is deterministic). Over chunks (--chunk h) the correction is of a whole chunk, from the observation that it begins
with, and Q values chunks; theirs corrects each step of the base's chunk by what is seen then, on values of single
actions. Noise is added to the clipped action; no weight decay and no clipping of gradients; their
critics share a first layer for images, and their code squares the mean of the critics' absolute errors.
"""

from __future__ import annotations

from understudy.algorithm import ActorCritic
from understudy.critics import TD
from understudy.extractions import DDPGBC
from understudy.policies.residual import Residual


def resfit(action_size: int) -> ActorCritic:
    """ResFiT: an imitating base, and a small correction of its actions learned live from values."""
    return ActorCritic(
        critic=TD(ensemble=10, subset=2, layer_norm="before", aggregate="mean", target_noise=0.05,
                  target_noise_clip=0.3, learning_rate=1e-4),
        extraction=DDPGBC(alpha=1.0, normalise=False, exploration=0.05),
        policy=Residual(action_size=action_size, layer_norm="before"),
        learning_rate=1e-4,
        target_policy=True,
        policy_delay=0,
    )  # fmt: skip

"""Cal-QL. Nakamoto et al. 2023, "Cal-QL: Calibrated Offline RL Pre-Training for Efficient Online Fine-Tuning",
arXiv:2303.05479.

CQL (algorithms/cql.py) with one change (eq. 5.1, Algorithm 1): where the gap values the policy's actions a^,
    Q_i(s, a^)  becomes  max(Q_i(s, a^), V_mu(s)),  V_mu(s) the Monte-Carlo return of the data from s,
so that conservatism never pushes values below those of the behaviour policy, and online learning need not first
unlearn them. Uniform actions are not bounded. A row whose return is unknown holds -inf and is plain CQL's.
Online, the phase mixes prior and new data half and half; rows of the replay carry the returns of their episodes.
Settings of the authors' runs: AntMaze lagrange with gap_target 0.8, critic (256,) * 4; Adroit weight 1, policy
(512, 512), critic (512,) * 3; Kitchen importance = False, both (512,) * 3.
"""

from __future__ import annotations

from understudy.algorithm import ActorCritic
from understudy.algorithms.cql import CQLCritic
from understudy.algorithms.sac import MaxEnt
from understudy.policies.tanh_gaussian import TanhGaussian


def cal_ql(action_size: int) -> ActorCritic:
    """Calibrated Q-learning: conservative values that fine-tuning can build on."""
    return ActorCritic(
        critic=CQLCritic(calibrated=True, max_target_backup=True),
        extraction=MaxEnt(learning_rate=1e-4),
        policy=TanhGaussian(action_size=action_size),
        learning_rate=1e-4,
    )

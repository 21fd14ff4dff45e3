"""WSRL. Zhou et al. 2024, "Efficient Online Reinforcement Learning Fine-Tuning Need Not Retain Offline Data",
arXiv:2412.07762.

Algorithm 1, warm-start RL: nothing of the offline data is kept after the switch.
    offline   theta, phi <- Cal-QL (algorithms/cal_ql.py) on the data
    warm-up   K steps with the frozen pi_phi fill the replay; no updates
    online    G updates a step, on the replay alone, of SAC with E layer-normed critics (REDQ):
                  y       = r + gamma m min_{j in Z} Qbar_j(s', a'),  Z a random pair of them
                  theta_i <- descend  E (Q_i(s, a) - y)^2
              and one of the policy and the temperature:
                  phi     <- descend  E [alpha log pi(a|s) - min_i Q_i(s, a)]
Networks and optimisers go on as they are. What the paper adds belongs to the run (`registry.Entry.run`): the switch
warmup:5000+drop, utd 4, batches of 256, and online a conservative weight of 0, which leaves the critic's loss above.
Deviations: a' is the best of N samples of the policy before and after the switch, as in the authors' AntMaze runs; in
their others it is a single sample online. The policy takes its step on one of the G batches of a live step, not on all.
In the authors' code Z may hold one network twice, the offline gap too is that of a random pair, the networks share an
output layer, and the temperature is a softplus, stepped by the entropy at s'.
Settings of the authors' runs: AntMaze lagrange, gap_target 0.8, critic (256,) * 4; Adroit weight 1, policy (512, 512),
critic (512,) * 3; Kitchen importance = False, both (512,) * 3; locomotion calibrated = False (plain CQL offline).
"""

from __future__ import annotations

from understudy.algorithm import ActorCritic
from understudy.algorithms.cql import CQLCritic
from understudy.algorithms.sac import MaxEnt
from understudy.policies.tanh_gaussian import TanhGaussian


def wsrl(action_size: int) -> ActorCritic:
    """Warm-start RL: Cal-QL offline; online SAC without the offline data, after a warm-up."""
    critic = CQLCritic(calibrated=True, max_target_backup=True, ensemble=10, subset=2, layer_norm="before")
    return ActorCritic(
        critic=critic,
        extraction=MaxEnt(learning_rate=1e-4),
        policy=TanhGaussian(action_size=action_size, layer_norm="before"),
        learning_rate=1e-4,
        policy_delay=0,
    )

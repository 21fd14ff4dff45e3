"""IFQL. Park, Li and Levine 2025, "Flow Q-Learning", arXiv:2502.02538, appendix: IDQL (Hansen-Estruch et al. 2023,
"IDQL: Implicit Q-Learning as an Actor-Critic Method with Diffusion Policies", arXiv:2304.10573) with a flow policy.

Each update: the critic of IQL, and a flow that imitates,
    V, Q   <- descend as in IQL (algorithms/iql.py)
    v      <- descend  E |v(s, (1 - t) z + t a, t) - (a - z)|^2,  t ~ U[0, 1]
To act: N samples of the flow at s, the one of highest Q(s, a).
Deviation: candidates are compared under the target networks, which is what IQL's critic calls its value.
"""

from __future__ import annotations

from understudy.algorithm import ActorCritic
from understudy.algorithms.iql import IQLCritic
from understudy.extractions import BestOfN
from understudy.policies.flow import Flow


def ifql(action_size: int) -> ActorCritic:
    """Implicit flow Q-learning: in-sample values, and the best of 32 samples of a flow."""
    return ActorCritic(
        critic=IQLCritic(expectile=0.9),
        extraction=BestOfN(samples=32),
        policy=Flow(action_size=action_size),
    )

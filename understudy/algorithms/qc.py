"""QC and QC-FQL. Li, Zhou and Levine 2025, "Reinforcement Learning with Action Chunking", arXiv:2507.07969.

Values and policies over chunks of h actions, A = (a_t ... a_{t+h-1}), played open loop (wrappers.Chunked); QC:
    A'     = argmax_{A_1..A_N ~ flow(s_{t+h})} mean_j Qbar_j(s_{t+h}, A_n)                    (best of N, section 4.2)
    Q_i    <- descend  E (sum_{k<h} gamma^k r_{t+k} + gamma^h m mean_j Qbar_j(s_{t+h}, A') - Q_i(s_t, A))^2     (eq. 7)
    v      <- descend  E |v(s_t, (1 - u) z + u A, u) - (A - z)|^2,  u ~ U[0, 1]
To act: the best of N chunks of the flow. QC-FQL is FQL (algorithms/fql.py) over chunks.
Candidates are compared under the current networks, in the backup as when acting.
Deviations: a chunk that a time-out would cut begins earlier instead of being masked, so that it ends with the
trajectory, and where that is too short another of the batch takes its place (where there is any: the first h - 1 live
steps alone are padded); one cut by a termination keeps its return and is padded with its last action, unless masked is
true, as with the authors.
"""

from __future__ import annotations

from understudy.algorithm import ActorCritic
from understudy.algorithms.fql import fql
from understudy.critics import TD
from understudy.extractions import BestOfN
from understudy.policies.flow import Flow
from understudy.wrappers import Chunked


def qc(action_size: int) -> Chunked:
    """Q-chunking: values of chunks of five actions, and the best of 32 that a flow proposes."""
    return Chunked(
        algorithm=ActorCritic(
            critic=TD(backup="mean", aggregate="mean"),
            extraction=BestOfN(samples=32),
            policy=Flow(action_size=action_size),
        )
    )


def qc_fql(action_size: int) -> Chunked:
    """Flow Q-learning over chunks of five actions."""
    return Chunked(algorithm=fql(action_size))

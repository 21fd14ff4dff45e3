"""FQL. Park, Li and Levine 2025, "Flow Q-Learning", arXiv:2502.02538.

Algorithm 1, each update (mu: one-step policy, v: velocity of the imitating flow):
    a'     = clip(mu(s', z')),  z' ~ N(0, I)
    Q_i    <- descend  E (r + gamma m mean_j Qbar_j(s', a') - Q_i(s, a))^2
    v      <- descend  E |v(s, (1 - t) z + t a, t) - (a - z)|^2,  t ~ U[0, 1]                 (eq. 5)
    mu     <- descend  E [-Q(s, mu(s, z)) + alpha |mu(s, z) - flow(s, z)|^2]                  (eq. 9)
alpha spans 3 to 30 000 over tasks, with the scale of Q. With normalise (the default here) the value is divided by
mean |Q| and alpha lies near 0.03 to 10; extraction.normalise = False gives the paper's raw coefficient.
Deviation: the policy sees the critic after its step; the authors' code takes all three steps at once.
"""

from __future__ import annotations

from understudy.algorithm import ActorCritic, Extraction
from understudy.core import leaf, pytree, static
from understudy.critics import TD
from understudy.losses import normalised_q_weight
from understudy.policies.one_step_flow import OneStepFlow


@pytree
class Distil(Extraction):
    """A one-step policy that climbs Q and stays near the flow that imitates the data."""

    needs = ("distil",)
    alpha: float = leaf(1.0, "weight of distillation against the (normalised) value", symbol="alpha", low=0.0)
    normalise: bool = static(True, "divide the value by its mean absolute value in the batch")

    def loss(self, params, aux, policy, critic, critic_state, batch, key):
        matching, distillation, actions = policy.distil(params, batch["observations"], batch["actions"], key)
        q = critic.q(critic_state, batch["observations"], actions)
        weight = normalised_q_weight(q) if self.normalise else 1.0
        matching, distillation = matching.mean(), distillation.mean()
        metrics = {"flow_matching": matching, "distillation": distillation, "q": q.mean()}
        return matching + self.alpha * distillation - weight * q.mean(), metrics


def fql(action_size: int) -> ActorCritic:
    """Flow Q-learning: an expressive imitator, and a one-step policy distilled from it that climbs Q."""
    return ActorCritic(
        critic=TD(backup="mean", aggregate="mean"),
        extraction=Distil(),
        policy=OneStepFlow(action_size=action_size),
    )

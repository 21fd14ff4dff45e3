"""ReBRAC. Tarasov et al. 2023, "Revisiting the Minimalist Approach to Offline Reinforcement Learning",
arXiv:2305.09836.

TD3+BC with imitation in the backup as well, deeper networks and layer norm, each update:
    a'    = clip(pibar(s') + clip(eps, -c, c), -1, 1),  eps ~ N(0, sigma)
    y     = r + gamma m (min_j Qbar_j(s', a') - beta_2 |a' - a'_data|^2)                      (eq. 4)
    Q_i   <- descend E (Q_i(s, a) - y)^2
    every d-th update:  pi <- descend E [-lambda Q(s, pi(s)) + beta_1 |pi(s) - a|^2],  lambda = 1 / mean |Q|   (eq. 3);
                        the targets Qbar, pibar follow.
a'_data is the action recorded at s'; where a recording ends before it, the penalty is dropped. beta_1 is
extraction.alpha (with normalise, the default; extraction.normalise = False gives the raw coefficient), beta_2 is
critic.penalty. Squared distances are summed over action dimensions, as in the authors' code, which by
now also bounds y below by the recorded return.
"""

from __future__ import annotations

import jax

from understudy.algorithm import ActorCritic
from understudy.core import TRANSITION, Batch, Metrics, leaf, pytree
from understudy.critics import BootstrapCritic, QState, smooth
from understudy.extractions import DDPGBC
from understudy.policies.deterministic import Deterministic


@pytree
class ReBRACCritic(BootstrapCritic):
    """TD learning that pays for leaving the recorded action at the next state."""

    requires = TRANSITION | {"next_actions", "next_valids"}
    penalty: float = leaf(0.01, "weight of the distance to the recorded next action", symbol="beta_2", low=0.0)
    target_noise: float = leaf(0.2, "deviation of the noise on the backup's action", symbol="sigma", low=0.0)
    target_noise_clip: float = leaf(0.5, "bound of that noise", symbol="c", low=0.0)

    def target(self, state: QState, batch: Batch, actor, key) -> jax.Array:
        key_action, key_noise, key_subset = jax.random.split(key, 3)
        actions = actor.choose_at(batch, "next_observations", key_action)
        actions = smooth(actions, self.target_noise, self.target_noise_clip, key_noise)
        distance = batch["next_valids"] * ((actions - batch["next_actions"]) ** 2).sum(-1)
        q = self.next_q(state, batch["next_observations"], actions, key_subset)
        return batch["rewards"] + self.discount * batch["masks"] * (q - self.penalty * distance)

    def update(self, state: QState, batch: Batch, actor, key) -> tuple[QState, Metrics]:
        return self.learn(state, self.q_loss, self.target(state, batch, actor, key), batch, key)


def rebrac(action_size: int) -> ActorCritic:
    """ReBRAC: TD3+BC with a penalised backup and layer-normed critics."""
    return ActorCritic(
        critic=ReBRACCritic(hidden=(256, 256, 256), layer_norm="after", target_period=2),
        extraction=DDPGBC(alpha=0.01, exploration=0.03),
        policy=Deterministic(action_size=action_size, hidden=(256, 256, 256)),
        target_policy=True,
        policy_delay=2,
    )
